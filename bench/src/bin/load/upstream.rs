//! The upstream behind a measured server. It parses no more of a request than where it ends, to leave the generator's
//! core to the generator.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Result;
use super::peer::{Answer, Peer};

/// Listens if the server has an upstream, and returns the count of clients' messages that it has answered.
pub async fn serve(peer: &Peer) -> Result<Rc<Cell<u64>>> {
    let taken = Rc::new(Cell::new(0));
    let Some(upstream) = &peer.upstream else { return Ok(taken) };
    let listener = TcpListener::bind(upstream.address).await?;
    let (answers, count): (Rc<[Answer]>, _) = (upstream.answers.clone().into(), taken.clone());
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (answers, count) = (answers.clone(), count.clone());
            // A server that ends a connection opens another.
            tokio::task::spawn_local(async move { drop(answer(stream, &answers, &count).await) });
        }
    });
    Ok(taken)
}

async fn answer(mut stream: TcpStream, answers: &[Answer], taken: &Cell<u64>) -> io::Result<()> {
    let mut received = Vec::with_capacity(4096);
    loop {
        while let Some(request) = Request::parse(&received)? {
            let found =
                answers.iter().find(|answer| request.body.starts_with(answer.prefix.as_bytes()));
            let found = found.ok_or(io::ErrorKind::InvalidData)?;
            taken.set(taken.get() + u64::from(found.message));
            let length = request.length;
            match found.response.contains("{channel}") {
                true => {
                    let response = found.response.replace("{channel}", request.last_segment());
                    stream.write_all(response.as_bytes()).await?;
                }
                false => stream.write_all(found.response.as_bytes()).await?,
            }
            received.drain(..length);
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

struct Request<'a> {
    path: &'a str,
    body: &'a [u8],
    /// The length of the head and the body.
    length: usize,
}

impl<'a> Request<'a> {
    /// Returns the first request if all of it is there.
    fn parse(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..head]).map_err(io::Error::other)?;
        let mut lines = text.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let mut length = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(io::Error::other("requests without a length are not read"));
            }
        }
        let body = bytes.get(head + 4..head + 4 + length);
        Ok(body.map(|body| Self { path, body, length: head + 4 + length }))
    }

    fn last_segment(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn requests_are_read_when_all_of_them_is_there() {
        let bytes =
            b"POST /a/talk-1/?x=/y HTTP/1.1\r\ncontent-length: 4\r\nHost: a\r\n\r\nbodyPOST";
        let request = Request::parse(bytes).unwrap().unwrap();
        assert_eq!((request.last_segment(), request.body), ("talk-1", b"body".as_slice()));
        assert_eq!(bytes.len() - request.length, 4);
        assert!(Request::parse(&bytes[..bytes.len() - 5]).unwrap().is_none());
        assert!(Request::parse(b"P / H\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
