//! A client in raw frames, which does exactly what a test says, right or wrong.

use std::sync::Arc;

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::codec;
use driftlog_core::entry::{Body, Entry, Header, Salt};
use driftlog_core::id::{ActorId, Base, ClientId, EpochId, LogName, Name, Offset, RecordId, RunId, Seq};
use driftlog_core::op::{FieldOp, Insert, Op, Update};
use driftlog_core::packed::{Item, Packer, Void};
use driftlog_core::protocol::frame::{
    self, Ack, Credit, Entries, Frame, Hello, LogNumber, Nonce, Opened, Push, SubscribeLog, Welcome,
};
use driftlog_core::protocol::{Code, VERSION};
use driftlog_core::time::Time;
use driftlog_core::value::Value;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The log that most tests write to.
pub const LOG: &str = "board/1";

/// Credit for all that there is to be sent of a log.
pub fn endless_credit(log: LogNumber) -> Frame {
    Frame::Credit(Credit { bytes: u64::MAX, of_log: Some((log, u64::MAX)) })
}

/// One socket. Whatever does not go as expected is a panic, which fails its test.
///
/// # Panics
/// Every method.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Bytes that the server lets it push in total.
    pub credit: u64,
}

impl Socket {
    /// Connects to `host:port`.
    pub async fn connect(url: &str) -> Self {
        let (stream, _) = tokio_tungstenite::connect_async(format!("ws://{url}/sync")).await.expect("connects");
        Self { stream, credit: 0 }
    }

    /// The socket itself, for who reads while a write blocks.
    pub fn into_stream(self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        self.stream
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_bytes(frame.encode()).await;
    }

    /// Sends bytes that may be no frame.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::binary(bytes)).await.expect("sends");
    }

    /// The next frame; none when the socket has ended.
    pub async fn receive(&mut self) -> Option<Frame> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Binary(bytes)) => {
                    let frame = Frame::decode(&bytes).expect("a frame");
                    match &frame {
                        Frame::Welcome(welcome) => self.credit = welcome.credit,
                        Frame::Credit(credit) => self.credit = credit.bytes,
                        _ => {}
                    }
                    return Some(frame);
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame of an open socket.
    pub async fn next(&mut self) -> Frame {
        self.receive().await.expect("the socket is open")
    }

    /// The welcome, which must be next.
    pub async fn welcome(&mut self) -> Welcome {
        match self.next().await {
            Frame::Welcome(welcome) => welcome,
            other => panic!("welcome expected: {other:?}"),
        }
    }

    /// The opened frame, which must be next.
    pub async fn opened(&mut self) -> Opened {
        match self.next().await {
            Frame::Opened(opened) => opened,
            other => panic!("opened expected: {other:?}"),
        }
    }

    /// The next ack; entries, credit and pings on the way are passed over.
    pub async fn ack(&mut self) -> Ack {
        loop {
            match self.next().await {
                Frame::Ack(ack) => return ack,
                Frame::Entries(_) | Frame::Credit(_) | Frame::Ping(_) => {}
                other => panic!("ack expected: {other:?}"),
            }
        }
    }

    /// The next entries; acks, credit and pings on the way are passed over.
    pub async fn entries(&mut self) -> Entries {
        loop {
            match self.next().await {
                Frame::Entries(entries) => return entries,
                Frame::Ack(_) | Frame::Credit(_) | Frame::Ping(_) => {}
                other => panic!("entries expected: {other:?}"),
            }
        }
    }

    /// Reads entries until the cursor stands at `end`; gives all items.
    pub async fn items_until(&mut self, end: u64) -> (Vec<Item>, Cursor) {
        let mut items = Vec::new();
        loop {
            let frame = self.entries().await;
            items.extend(frame.entries.unpack(frame.from).expect("unpacks"));
            if frame.after.next >= Offset(end) {
                return (items, frame.after);
            }
        }
    }

    /// The next error; everything else on the way is passed over.
    pub async fn error(&mut self) -> frame::Error {
        loop {
            if let Frame::Error(error) = self.next().await {
                return error;
            }
        }
    }

    /// The next error ends the session with this code.
    pub async fn ends_with(mut self, code: Code) {
        let error = self.error().await;
        assert_eq!((error.code, error.log), (code, None), "{}", error.reason);
        assert_eq!(self.receive().await, None, "the socket closes");
    }
}

/// One client's memory: what a real one keeps in its database.
#[derive(Clone)]
pub struct Peer {
    /// Its client.
    pub client: ClientId,
    /// Its actor.
    pub actor: ActorId,
    /// Of the last two welcomes, newest first.
    pub nonces: Vec<Nonce>,
    /// What it shows.
    pub token: Option<String>,
    /// The last seq it gave.
    pub seq: Seq,
    /// Its chain there.
    pub chain: Chain,
    /// The base of its next entry.
    pub base: Base,
    /// Its one log.
    pub log: LogName,
}

impl Peer {
    /// A client of the user with this name, at most 16 bytes long, that has done nothing yet.
    pub fn new(name: &str) -> Self {
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        let (actor, log) = (ActorId(id), LogName::new(LOG).expect("a name"));
        Self {
            client: ClientId(id),
            actor,
            nonces: Vec::new(),
            token: Some(format!("dev:{name}")),
            seq: Seq(0),
            chain: Chain::actor_start(actor, &log),
            base: Base { epoch: EpochId::NONE, end: Offset(0) },
            log,
        }
    }

    /// Makes another log its own, before it has done anything.
    pub fn set_log(&mut self, log: LogName) {
        self.chain = Chain::actor_start(self.actor, &log);
        self.log = log;
    }

    /// Its next hello.
    pub fn hello(&self) -> Hello {
        Hello {
            protocol_min: VERSION,
            protocol_max: VERSION,
            client: self.client,
            actor: self.actor,
            predecessor: None,
            user: None,
            nonces: self.nonces.clone(),
            device: "test".to_owned(),
            token: self.token.clone(),
            now: 0,
        }
    }

    /// A subscription to its log from the beginning.
    pub fn subscription(&self, log: LogNumber) -> SubscribeLog {
        SubscribeLog {
            log,
            name: self.log.clone(),
            log_id: None,
            cursor: None,
            epoch: None,
            read: true,
            decided: self.seq,
            held: self.seq.next(),
            priority: 128,
            end: None,
            begun: None,
        }
    }

    /// Connects and is welcomed.
    pub async fn connect(&mut self, url: &str) -> Socket {
        let mut socket = Socket::connect(url).await;
        socket.send(&Frame::Hello(self.hello())).await;
        let welcome = socket.welcome().await;
        self.nonces.insert(0, welcome.nonce);
        self.nonces.truncate(2);
        socket
    }

    /// Connects and opens its log as number 1, reading from the beginning.
    pub async fn open(&mut self, url: &str) -> (Socket, Opened) {
        let mut socket = self.connect(url).await;
        let subscription = self.subscription(1);
        let opened = self.subscribe(&mut socket, subscription).await;
        (socket, opened)
    }

    /// Connects and opens its log as number 1 without reading it.
    pub async fn open_to_push(&mut self, url: &str) -> (Socket, Opened) {
        let mut socket = self.connect(url).await;
        let subscription = SubscribeLog { read: false, ..self.subscription(1) };
        let opened = self.subscribe(&mut socket, subscription).await;
        (socket, opened)
    }

    /// Subscribes, and takes the end of the log as the base of what it does next.
    pub async fn subscribe(&mut self, socket: &mut Socket, subscription: SubscribeLog) -> Opened {
        socket.send(&Frame::from(subscription)).await;
        let opened = socket.opened().await;
        self.base = Base { epoch: opened.epochs.last().expect("an epoch").0, end: opened.end };
        opened
    }

    /// A body that inserts a record.
    pub fn insert(record: &str) -> Vec<Op> {
        let fields = vec![(name("title"), FieldOp::Set(Value::from(record)))];
        vec![Op::Insert(Insert { collection: name("todos"), record: id(record), fields })]
    }

    /// A body that sets a field of a record.
    pub fn set(record: &str, value: &str) -> Vec<Op> {
        let op = FieldOp::Set(Value::from(value));
        vec![Op::Update(Update { collection: name("todos"), record: id(record), field: name("title"), op })]
    }

    /// A body of a newer version, with content that no build of today reads.
    pub fn unknown() -> Vec<Op> {
        let content = codec::to_bytes(&("todos", "x", [1, 2], ("later", -7)));
        vec![Op::Unknown(99, codec::from_canonical(&content).expect("content"))]
    }

    /// The next entry, with these ops.
    pub fn act(&mut self, ops: Vec<Op>) -> Entry {
        self.act_with(ops, |_| {})
    }

    /// The next entry, with changes to its header.
    pub fn act_with(&mut self, ops: Vec<Op>, header: impl FnOnce(&mut Header)) -> Entry {
        self.seq = self.seq.next();
        let mut head = Header::new(RunId([self.actor.0[0]; 8]), self.seq.0, self.seq, self.base, Time::from_ms(1_000));
        header(&mut head);
        let body = Body::new(name("act"), None, ops, None, Salt([7; 8]));
        let entry = Entry::new(head, Arc::new(body)).expect("valid");
        self.chain = self.chain.with_pushed(self.seq, entry.digest());
        entry
    }

    /// A push of these entries, with the chain as it stands.
    pub fn push(&self, entries: &[Entry]) -> Frame {
        let mut packer = Packer::default();
        entries.iter().for_each(|entry| packer.push(self.actor, entry));
        self.push_packed(entries[0].header.seq, packer)
    }

    /// A push that gives seqs up.
    pub fn push_void(&mut self, through: Seq, reason: &str) -> Frame {
        let mut packer = Packer::default();
        let from = self.seq.next();
        packer.push_void(Void { from, through, reason: reason.to_owned() });
        (self.seq, self.chain) = (through, self.chain.with_void(through, reason));
        self.push_packed(from, packer)
    }

    fn push_packed(&self, first: Seq, packer: Packer) -> Frame {
        Frame::Push(Push { log: 1, first, chain: self.chain, entries: packer.finish() })
    }
}

/// A name.
///
/// # Panics
/// If it is none.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn id(text: &str) -> RecordId {
    RecordId::new(text).expect("an id")
}

/// Statuses of an ack's marks.
pub fn marks(ack: &Ack) -> Vec<(u64, Option<Code>)> {
    ack.marked.iter().map(|mark| (mark.seq.0, mark.code)).collect()
}

/// Seqs and offsets of an ack's accepted entries.
pub fn accepted(ack: &Ack) -> Vec<(u64, u64)> {
    let each = |range: &frame::AckRange| {
        let (seq, offset) = (range.seq.0, range.offset.0);
        (0..u64::from(range.count)).map(move |at| (seq + at, offset + at))
    };
    ack.accepted.iter().flat_map(each).collect()
}
