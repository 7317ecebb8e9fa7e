//! WebSocket frames as bytes: client frames in which every bit may be wrong, and server frames,
//! which are read strictly (RFC 6455 section 5).

/// The opcodes of RFC 6455 section 5.2.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A client frame, valid until a test changes it.
#[derive(Debug, Clone)]
pub struct ClientFrame {
    fin: bool,
    rsv: u8,
    opcode: u8,
    mask: Option<[u8; 4]>,
    length: Length,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Length {
    Minimal,
    /// Encodes the length in two bytes even if one would be enough.
    Two,
    /// Encodes this length in eight bytes, whatever the length of the payload is.
    Eight(u64),
}

/// An unfragmented frame.
pub fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> ClientFrame {
    ClientFrame {
        fin: true,
        rsv: 0,
        opcode,
        mask: Some([0x37, 0xfa, 0x21, 0x3d]),
        length: Length::Minimal,
        payload: payload.as_ref().into(),
    }
}

pub fn text(payload: impl AsRef<[u8]>) -> ClientFrame {
    frame(TEXT, payload)
}

pub fn binary(payload: impl AsRef<[u8]>) -> ClientFrame {
    frame(BINARY, payload)
}

pub fn continuation(payload: impl AsRef<[u8]>) -> ClientFrame {
    frame(CONTINUATION, payload)
}

pub fn ping(payload: impl AsRef<[u8]>) -> ClientFrame {
    frame(PING, payload)
}

pub fn pong(payload: impl AsRef<[u8]>) -> ClientFrame {
    frame(PONG, payload)
}

/// A close frame with any code and any bytes as its reason.
pub fn close(code: u16, reason: impl AsRef<[u8]>) -> ClientFrame {
    frame(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

impl ClientFrame {
    /// Clears FIN: more fragments follow.
    pub fn more(mut self) -> Self {
        self.fin = false;
        self
    }

    /// Sets the three reserved bits, 0 to 7.
    pub fn rsv(mut self, bits: u8) -> Self {
        self.rsv = bits;
        self
    }

    pub fn mask(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// Encodes the length in two bytes, however small it is.
    pub fn two_byte_length(mut self) -> Self {
        self.length = Length::Two;
        self
    }

    /// Encodes the length in eight bytes, however small it is.
    pub fn eight_byte_length(self) -> Self {
        let length = self.payload.len() as u64;
        self.declaring(length)
    }

    /// Declares `length` in eight bytes, whatever the length of the payload is.
    pub fn declaring(mut self, length: u64) -> Self {
        self.length = Length::Eight(length);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 14);
        bytes.push(u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode);
        let masked = u8::from(self.mask.is_some()) << 7;
        let length = self.payload.len();
        match self.length {
            Length::Minimal if length < 126 => bytes.push(masked | length as u8),
            Length::Minimal if length > 0xffff => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
            Length::Minimal | Length::Two => {
                bytes.push(masked | 126);
                bytes.extend(u16::try_from(length).expect("fits in two bytes").to_be_bytes());
            }
            Length::Eight(declared) => {
                bytes.push(masked | 127);
                bytes.extend(declared.to_be_bytes());
            }
        }
        let key = self.mask.unwrap_or_default();
        bytes.extend(self.mask.iter().flatten());
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }
}

/// The bytes of several frames in order.
pub fn join(frames: &[ClientFrame]) -> Vec<u8> {
    frames.iter().flat_map(ClientFrame::bytes).collect()
}

/// Splits `payload` into a text or binary message with fragments of at most `size` bytes.
pub fn fragmented(opcode: u8, payload: &[u8], size: usize) -> Vec<ClientFrame> {
    let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let fragment = |(index, piece): (usize, &&[u8])| {
        let frame = frame(if index == 0 { opcode } else { CONTINUATION }, piece);
        if index == last { frame } else { frame.more() }
    };
    pieces.iter().enumerate().map(fragment).collect()
}

/// A frame from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFrame {
    pub fin: bool,
    /// Whether a compressed message begins.
    pub compressed: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// Removes one complete frame from the front of `buffer`; `None` means that it is incomplete. Panics if a server
/// must not send such a frame.
pub fn take_server_frame(buffer: &mut Vec<u8>) -> Option<ServerFrame> {
    let (&[first, second], rest) = buffer.split_first_chunk()?;
    let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0xf);
    let compressed = rsv == 4 && matches!(opcode, TEXT | BINARY);
    assert!(rsv == 0 || compressed, "a reserved bit without an extension");
    assert_eq!(second & 0x80, 0, "a masked frame from a server");
    assert!(matches!(opcode, 0..=2 | 8..=10), "reserved opcode {opcode}");
    let (length, head) = match second & 0x7f {
        126 => {
            let length = u64::from(u16::from_be_bytes(*rest.first_chunk()?));
            assert!(length > 125, "{length} in two bytes");
            (length, 4)
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 0xffff, "{length} in eight bytes");
            (length, 10)
        }
        length => (u64::from(length), 2),
    };
    if opcode >= 8 {
        assert!(fin, "a fragmented control frame");
        assert!(length <= 125, "a control frame of {length} bytes");
    }
    let end = head + usize::try_from(length).expect("a length of this machine");
    let payload = buffer.get(head..end)?.to_vec();
    buffer.drain(..end);
    Some(ServerFrame { fin, compressed, opcode, payload })
}
