//! What proxies in front say of a client. The first byte chooses: a header of the PROXY protocol, which arrives in pieces
//! of the second byte's size, or a client's forwarding headers, one a line, behind which a trusted proxy adds its own.
#![no_main]

use std::net::IpAddr;

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tidegate::internals::proxies::{
    ClientAddress, ForwardingHeader, HeaderProgress, ProxyHeader, append_forwarded,
    read_proxy_header, unify_forwarding,
};

fuzz_target!(|bytes: &[u8]| {
    let &[kind, size, ref rest @ ..] = bytes else { return };
    match kind & 1 {
        0 => read_in_pieces(rest, usize::from(size).max(1)),
        _ => forward(rest, size),
    }
});

/// However a header is split, it is read alike, to its end and no further.
fn read_in_pieces(bytes: &[u8], size: usize) {
    let whole = read(bytes, usize::MAX);
    assert_eq!(read(bytes, size), whole);
    let Some((header, taken)) = whole else { return };
    assert!(taken <= 16 + 4096 && taken <= bytes.len());
    if let ProxyHeader::Client { address, .. } = header {
        assert!(address.ip() == address.ip().to_canonical());
    }
}

fn read(bytes: &[u8], size: usize) -> Option<(ProxyHeader, usize)> {
    let mut taken = 0;
    loop {
        let most = match read_proxy_header(&bytes[..taken]).ok()? {
            HeaderProgress::Complete(header) => return Some((header, taken)),
            HeaderProgress::Needs(most) => most.min(size),
        };
        assert!(most > 0);
        let next = &bytes[taken..bytes.len().min(taken.saturating_add(most))];
        let end = next.iter().position(|byte| bytes[0] == b'P' && *byte == b'\n');
        let more = end.map_or(next.len(), |end| end + 1);
        if more == 0 {
            return None;
        }
        taken += more;
    }
}

/// Whatever a client writes, the proxy that adds its address is heard, or nobody is believed.
fn forward(written: &[u8], choice: u8) {
    let (proxy, client): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [203, 0, 113, 7].into());
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let mut headers = HeaderMap::new();
    for line in written.split(|byte| *byte == b'\n').take(8) {
        let Some((name, value)) = line.split_first() else { continue };
        let name = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
            [usize::from(*name) % 4];
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(HeaderName::from_static(name), value);
    }
    let sets_forwarded = choice & 1 == 0;
    let header = match (choice & 2 == 0, sets_forwarded) {
        (true, _) => ForwardingHeader::Auto,
        (_, true) => ForwardingHeader::Forwarded,
        (_, false) => ForwardingHeader::XForwardedFor,
    };
    let (name, added) = match sets_forwarded {
        true => ("forwarded", "for=\"203.0.113.7:47011\";proto=https"),
        false => ("x-forwarded-for", "203.0.113.7"),
    };
    // In a field of its own, or in the last one.
    let before = headers.get(name).filter(|_| choice & 4 == 0).map(HeaderValue::as_bytes);
    let value = match before {
        Some(before) if headers.get_all(name).iter().count() == 1 => {
            let value = [before, b", ", added.as_bytes()].concat();
            headers.remove(name);
            HeaderValue::from_bytes(&value).expect("a value")
        }
        _ => HeaderValue::from_static(added),
    };
    headers.append(HeaderName::from_static(name), value);
    let unified = unify_forwarding(&mut headers, proxy, &trusted, header);
    let address = ClientAddress::resolve(proxy, &headers, &trusted);
    match unified {
        Ok(()) => assert_eq!(address.ip, client, "{headers:?}"),
        Err(_) => assert_eq!((address.ip, header), (proxy, ForwardingHeader::Auto)),
    }
    headers.insert(HOST, HeaderValue::from_static("app.test"));
    append_forwarded(&mut headers, address);
    assert_eq!(headers.get_all(FORWARDED).iter().count(), 1);
}
