//! What an idle connection takes, see docs/performance.md: each byte is there once for every client.

use super::*;
use crate::limits::{ConnectionPermit, IpPermit, Lease};
use crate::presence::Member;
use crate::protocol::Params;

/// Prints each type's size, and fails where it is above the limit.
macro_rules! check_sizes {
    ($($type:ty: $limit:literal,)*) => {
        let sizes = [$((stringify!($type), size_of::<$type>(), $limit)),*];
        for (name, size, limit) in sizes {
            eprintln!("{name}: {size} bytes, at most {limit}");
        }
        for (name, size, limit) in sizes {
            assert!(size <= limit, "{name} has {size} bytes, and may have {limit}");
        }
    };
}

/// Sessions, sockets and wakers are in an `Rc` or `Arc`, which adds 16 bytes. A socket has 24 bytes less in a release build,
/// which has no streams of tests and no checks of mio's. The sums are sizes of which jemalloc has a class: 256, 160 and 32.
#[test]
fn an_idle_session_is_small() {
    check_sizes! {
        Session: 240,
        Socket: 168,
        driver::SessionWaker: 16,
        Client: 144,
        Permits: 24,
        ConnectionPermit: 8,
        IpPermit: 8,
        Heartbeat: 12,
        CredentialState: 8,
        Params: 16,
        // These exist only where they are used.
        RateBuckets: 32,
        Work: 80,
        Lease: 24,
        Member: 72,
    }
}
