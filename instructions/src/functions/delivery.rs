//! Deliveries to sockets of the kernel, whose own instructions callgrind does not see.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tidegate::internals::delivery::{
    ByteStream, ChannelName, ClientTcp, Delivery, HubPart, SendQueue, Socket, frame,
    watch_connections,
};
use tokio::net::{TcpListener, TcpStream};

use super::count;

const QUEUE: SendQueue = SendQueue { messages: 256, bytes: 1 << 20 };

/// A channel with sockets, and their clients, who read nothing: the kernel has room for all that is written.
struct Audience {
    hub: HubPart,
    channel: ChannelName,
    frame: Bytes,
    _clients: Vec<TcpStream>,
}

impl Audience {
    async fn of(sockets: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let channel = ChannelName::new("busy").expect("a name");
        let hub = HubPart::default();
        let mut clients = Vec::new();
        for _ in 0..sockets {
            clients.push(TcpStream::connect(address).await.expect("a connection"));
            let (ours, _) = listener.accept().await.expect("a connection");
            let ours = ClientTcp::from_tokio(ours).expect("a socket");
            hub.attach(&channel, Rc::new(Socket::new(ByteStream::Tcp(ours), 1000, QUEUE)));
        }
        let frame = frame::text(r#"{"event":"chunk","chunk":"one of many words"}"#);
        Self { hub, channel, frame, _clients: clients }
    }

    /// Delivers so many publications that wait together.
    fn deliver(&self, waiting: usize) {
        let received = Instant::now();
        for _ in 0..waiting {
            let delivery = Delivery::new(self.frame.clone(), None);
            self.hub.queue(self.channel.clone(), delivery, received);
        }
        while !self.hub.is_idle() {
            self.hub.take_turn();
        }
    }
}

pub fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // tokio's budget would make writes fail after 128 of them.
    let counted = tokio::task::unconstrained(count_deliveries());
    runtime.expect("a runtime").block_on(counted);
}

async fn count_deliveries() {
    // All that is written fits into the kernel's queues, so that nothing is waited for.
    let _watching = watch_connections().expect("a queue of the kernel");
    for sockets in [1, 100, 1000] {
        let audience = Audience::of(sockets).await;
        let name = format!("deliver a publication to {sockets} sockets, for each");
        count(&name, 8 * sockets, || (0..8).for_each(|_| audience.deliver(1)));
        if sockets == 100 {
            let name =
                "deliver 16 publications that wait together to 100 sockets, for each delivery";
            count(name, 4 * 16 * sockets, || (0..4).for_each(|_| audience.deliver(16)));
        }
    }
}
