use std::cell::RefCell;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

type Messages = RefCell<Vec<(Vec<u8>, Vec<u8>)>>;

fn message(channel: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = MESSAGE.to_vec();
    for part in [channel, payload] {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Returns what the library gets of `bytes`, which come in pieces of `piece` bytes, and what the messages are.
async fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>) {
    let messages = Messages::default();
    let note = |channel: &[u8], payload: &[u8]| {
        messages.borrow_mut().push((channel.to_vec(), payload.to_vec()));
    };
    let (ours, mut theirs) = tokio::io::duplex(piece);
    let mut stream = PushStream::new(ours, None, note);
    let writing = async {
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
    };
    let reading = async {
        let (mut passed, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return passed,
                length => passed.extend_from_slice(&buffer[..length]),
            }
        }
    };
    let ((), passed) = tokio::join!(writing, reading);
    drop(stream);
    (passed, messages.into_inner())
}

#[tokio::test]
async fn messages_are_taken_out_of_everything_else() {
    // Everything that a server can send, also what looks like a message and is none.
    let others: [&[u8]; 12] = [
        b"+OK\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
        b"%2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n+a\r\n*2\r\n:1\r\n_\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"|1\r\n+ttl\r\n:3600\r\n$2\r\nok\r\n",
        b"*1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
        b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"~2\r\n#t\r\n,1.5\r\n",
        b"-ERR no\r\n",
        b"$23\r\n>3\r\n$7\r\nmessage\r\n$1\r\n\r\n",
    ];
    for (piece, large) in
        [(1, 10), (2, 10), (7, 10), (1000, 3 * BUFFER_BYTES), (1 << 20, 3 * BUFFER_BYTES)]
    {
        let mut bytes = Vec::new();
        let mut expected = (Vec::new(), Vec::new());
        for (number, other) in others.iter().enumerate() {
            let payload = vec![b'\n'; if number == 5 { large } else { number }];
            let channel = format!("chat_{number}").into_bytes();
            bytes.extend(message(&channel, &payload));
            bytes.extend_from_slice(other);
            expected.0.extend_from_slice(other);
            expected.1.push((channel, payload));
        }
        assert_eq!(read(&bytes, piece).await, expected, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn what_is_not_resp_is_left_to_the_library() {
    for fault in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"$x\r\n",
        b">3\r\n$7\r\nmessage\r\n$99999999999999\r\na",
        b">3\r\n$7\r\nmessage\r\n:1\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nab\r\n",
    ] {
        let mut bytes = message(b"a", b"b");
        bytes.extend_from_slice(fault);
        let (passed, messages) = read(&bytes, 1 << 20).await;
        assert_eq!(passed, fault);
        assert_eq!(messages, [(b"a".to_vec(), b"b".to_vec())]);
    }
    let endless = vec![b'+'; 2 * BUFFER_BYTES];
    assert_eq!(read(&endless, 1 << 20).await, (endless.clone(), Vec::new()));
}

#[tokio::test]
async fn the_end_of_a_shard_subscription_is_an_answer_only_if_it_was_asked_for() {
    let end = |channel: &str| {
        format!(">3\r\n$12\r\nsunsubscribe\r\n${}\r\n{channel}\r\n:7\r\n", channel.len())
    };
    let mut bytes = SHARD_MESSAGE.to_vec();
    bytes.extend_from_slice(b"$1\r\na\r\n$2\r\nhi\r\n");
    for text in [end("asked"), "+OK\r\n".to_owned(), end("moved"), end("asked"), end("moved")] {
        bytes.extend_from_slice(text.as_bytes());
    }
    for piece in [1, 2, 7, 1 << 20] {
        let messages = Messages::default();
        let moved = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let note_moved = std::sync::Arc::clone(&moved);
        let on_end: OnShardEnd = Box::new(move |channel| {
            let is_moved = channel == b"moved";
            note_moved.lock().unwrap().push(is_moved);
            is_moved
        });
        let note = |channel: &[u8], payload: &[u8]| {
            messages.borrow_mut().push((channel.to_vec(), payload.to_vec()));
        };
        let (ours, mut theirs) = tokio::io::duplex(piece);
        let mut stream = PushStream::new(ours, Some(on_end), note);
        let mut passed = Vec::new();
        let writing = async {
            theirs.write_all(&bytes).await.unwrap();
            drop(theirs);
        };
        let (_, read) = tokio::join!(writing, stream.read_to_end(&mut passed));
        read.unwrap();
        drop(stream);
        let expected = [end("asked"), "+OK\r\n".to_owned(), end("asked")].concat();
        assert_eq!(String::from_utf8(passed).unwrap(), expected, "in pieces of {piece}");
        assert_eq!(*moved.lock().unwrap(), [false, true, false, true], "each once");
        assert_eq!(messages.into_inner(), [(b"a".to_vec(), b"hi".to_vec())]);
    }
}
