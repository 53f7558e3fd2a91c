//! Sockets: two ordered streams of frames each, which break as TCP does.
//!
//! Within a socket nothing is lost, doubled or reordered; a break lets a beginning of what was under way arrive, maybe
//! much later, and tells each end at its own time or never. A frame that was cut in its middle never arrives.

use std::collections::{BTreeMap, VecDeque};

use driftlog_core::engine::Input;
use driftlog_core::limits;
use driftlog_core::protocol::Frame;
use driftlog_server::stepped::SessionNumber;

use super::device::{DeviceNumber, Network, TabNumber};
use super::trace::note;
use super::weather::{between, chance};
use super::world::{Event, World};

/// Names a socket within one run.
pub type SocketNumber = u64;

/// Bytes that the server's end of a socket takes before the client has read any.
const WINDOW_BYTES: usize = 64 * 1024;
/// Bytes in the client's end below which the page is told to go on.
const LITTLE_BYTES: usize = 16 * 1024;

/// One end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The page.
    Client,
    /// The server.
    Server,
}

/// One direction of a socket.
#[derive(Default)]
struct Stream {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// When the last frame arrives.
    last: u64,
    /// Nothing that is sent from now on arrives.
    cut: bool,
}

/// A socket between a tab and the server.
pub struct Socket {
    device: DeviceNumber,
    tab: TabNumber,
    /// The server's session, and the server's start it belongs to.
    session: Option<(u64, SessionNumber)>,
    up: Stream,
    down: Stream,
    client_open: bool,
    server_open: bool,
    watched: bool,
}

/// How a socket breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ends hear of it.
    Told,
    /// Neither does: each must find out by itself.
    Silent,
}

/// All sockets.
#[derive(Default)]
pub struct Sockets {
    sockets: BTreeMap<SocketNumber, Socket>,
    last: SocketNumber,
    brought: BTreeMap<DeviceNumber, Brought>,
}

/// Bytes from the server to one device, over all of its sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brought {
    /// What the server handed to the network.
    pub sent: u64,
    /// What a page was given.
    pub arrived: u64,
}

impl Sockets {
    /// Sockets that a page has open.
    pub fn open(&self) -> Vec<SocketNumber> {
        self.sockets.iter().filter(|(_, socket)| socket.client_open).map(|(number, _)| *number).collect()
    }

    /// Sockets of one device.
    pub fn of_device(&self, device: DeviceNumber) -> Vec<SocketNumber> {
        self.sockets.iter().filter(|(_, socket)| socket.device == device).map(|(number, _)| *number).collect()
    }
}

impl World {
    /// Sockets of one device, open or not yet forgotten.
    pub fn sockets_of(&self, device: DeviceNumber) -> Vec<SocketNumber> {
        self.sockets.of_device(device)
    }

    /// What the network brought a device from the server.
    pub fn brought(&self, device: DeviceNumber) -> Brought {
        self.sockets.brought.get(&device).copied().unwrap_or_default()
    }

    /// A tab opens a socket.
    pub(super) fn socket_open(&mut self, device: DeviceNumber, tab: TabNumber) -> SocketNumber {
        self.sockets.last += 1;
        let number = self.sockets.last;
        let socket = Socket {
            device,
            tab,
            session: None,
            up: Stream::default(),
            down: Stream::default(),
            client_open: true,
            server_open: false,
            watched: false,
        };
        self.sockets.sockets.insert(number, socket);
        let delay = self.one_way(device);
        if self.devices[device].network == Network::Off || chance(&mut self.random, self.weather.opens_lost) {
            self.schedule(delay, Event::Gone(number, End::Client));
        } else {
            self.schedule(delay, Event::Reaches(number));
        }
        number
    }

    /// A socket's first packet reaches the server.
    pub(super) fn socket_reaches(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        let device = socket.device;
        if !socket.client_open {
            self.sockets.sockets.remove(&number);
            return;
        }
        let session = self.host.connect(number);
        let socket = self.sockets.sockets.get_mut(&number).expect("looked up above");
        match session {
            Some(session) => {
                (socket.session, socket.server_open) = (Some(session), true);
                note!(self, "socket {number} of {} reaches the server", self.devices[device].name);
                let delay = self.one_way(device);
                self.schedule(delay, Event::Opened(number));
                self.host_timer();
            }
            None => {
                let delay = self.one_way(device);
                self.schedule(delay, Event::Gone(number, End::Client));
            }
        }
    }

    /// The page hears that its socket is open.
    pub(super) fn socket_opened(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get(&number).filter(|socket| socket.client_open) else { return };
        let (device, tab) = (socket.device, socket.tab);
        note!(self, "socket {number} is open in tab {tab} of {}", self.devices[device].name);
        self.give_tab(device, tab, Input::SocketOpened);
        self.pump(number);
    }

    /// The page sends.
    pub(super) fn socket_send(&mut self, number: SocketNumber, bytes: Vec<u8>) {
        let Some(socket) = self.sockets.sockets.get_mut(&number).filter(|socket| socket.client_open) else { return };
        socket.up.bytes += bytes.len();
        let (waiting, bound) = (socket.up.bytes, limits::SOCKET_BUFFERED_BYTES_MAX + 2 * limits::FRAME_BYTES_MAX);
        let device = socket.device;
        if socket.up.cut {
            return;
        }
        if waiting > bound {
            let who = self.devices[device].name.clone();
            self.checker
                .violated("queue", format!("{waiting} bytes wait in the socket of {who}; the bound is {bound}"));
        }
        let delay = self.one_way(device);
        let now = self.now();
        let stream = &mut self.sockets.sockets.get_mut(&number).expect("looked up above").up;
        stream.frames.push_back(bytes);
        stream.last = stream.last.max(now + delay);
        let at = stream.last;
        self.schedule_at(at, Event::Up(number));
    }

    /// The page closes its socket: what it has sent arrives all the same, and then the server hears of the end.
    pub(super) fn socket_close(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        socket.client_open = false;
        let (at, device) = (socket.up.last, socket.device);
        note!(self, "socket {number} of {} is closed by the page", self.devices[device].name);
        let delay = self.one_way(device);
        self.schedule_at(at.max(self.now()) + delay, Event::Gone(number, End::Server));
    }

    /// Tells the page when little waits.
    pub(super) fn socket_watch(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        socket.watched = true;
        self.tell_buffered(number);
    }

    fn tell_buffered(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        if socket.watched && socket.client_open && socket.up.bytes <= LITTLE_BYTES {
            socket.watched = false;
            let (device, tab, bytes) = (socket.device, socket.tab, socket.up.bytes);
            self.schedule(1, Event::Give(device, tab, Box::new(Input::SocketBuffered(bytes))));
        }
    }

    /// The next frame of a page arrives at the server.
    pub(super) fn socket_up(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        let Some(bytes) = socket.up.frames.pop_front() else { return };
        socket.up.bytes -= bytes.len();
        if !socket.client_open {
            note!(self, "socket {number}: {} late bytes arrive", bytes.len());
        }
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        if let (Some(session), true) = (socket.session, socket.server_open) {
            self.host_receive(session, &bytes);
        }
        self.tell_buffered(number);
    }

    /// The next frame of the server arrives at the page.
    pub(super) fn socket_down(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        // A page takes answers in before the entries that wait in it.
        let frames = &socket.down.frames;
        let first = frames.iter().position(|frame| !Frame::gives_way(frame)).unwrap_or(0);
        let overtakes = first > 0 && Frame::overtakes(&frames[first]) && chance(&mut self.random, 500);
        let first = if overtakes { first } else { 0 };
        let Some(bytes) = socket.down.frames.remove(first) else { return };
        socket.down.bytes -= bytes.len();
        let (device, tab, open) = (socket.device, socket.tab, socket.client_open);
        if open {
            self.sockets.brought.entry(device).or_default().arrived += bytes.len() as u64;
            self.give_tab(device, tab, Input::SocketFrame(bytes));
        }
        self.pump(number);
    }

    /// An end hears that its socket is over.
    pub(super) fn socket_gone(&mut self, number: SocketNumber, end: End) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        let (device, tab, session) = (socket.device, socket.tab, socket.session);
        match end {
            End::Client if socket.client_open => {
                socket.client_open = false;
                self.tab_lost_socket(device, tab, number);
            }
            End::Server if socket.server_open => {
                socket.server_open = false;
                if let Some(session) = session {
                    self.host.disconnect(session);
                }
            }
            _ => {}
        }
        let socket = self.sockets.sockets.get(&number).expect("looked up above");
        if !socket.client_open && !socket.server_open {
            self.sockets.sockets.remove(&number);
        }
    }

    /// Takes frames from the server while the socket has room.
    pub(super) fn pump(&mut self, number: SocketNumber) {
        loop {
            let Some(socket) = self.sockets.sockets.get(&number).filter(|socket| socket.server_open) else { return };
            let (Some(session), device) = (socket.session, socket.device) else { return };
            if socket.down.bytes >= WINDOW_BYTES {
                return;
            }
            let Some(frame) = self.host.poll_frame(session) else { break };
            let (delay, now) = (self.one_way(device), self.now());
            self.sockets.brought.entry(device).or_default().sent += frame.len() as u64;
            let stream = &mut self.sockets.sockets.get_mut(&number).expect("looked up above").down;
            if stream.cut {
                continue;
            }
            stream.bytes += frame.len();
            stream.frames.push_back(frame.to_vec());
            stream.last = stream.last.max(now + delay);
            let at = stream.last;
            self.schedule_at(at, Event::Down(number));
        }
        self.end_if_closed(number);
    }

    /// The server has said everything: it closes its end.
    fn end_if_closed(&mut self, number: SocketNumber) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        let Some(session) = socket.session.filter(|session| self.host.is_closed(*session)) else { return };
        socket.server_open = false;
        let (at, cut) = (socket.down.last, socket.down.cut);
        self.host.disconnect(session);
        if !cut {
            self.schedule_at(at.max(self.now()) + 1, Event::Gone(number, End::Client));
        }
    }

    /// Breaks a socket: a beginning of what is under way arrives.
    pub fn cut(&mut self, number: SocketNumber, how: Cut) {
        let Some(socket) = self.sockets.sockets.get_mut(&number) else { return };
        for stream in [&mut socket.up, &mut socket.down] {
            let kept = self.random.below(stream.frames.len() as u64 + 1) as usize;
            let lost: usize = stream.frames.drain(kept..).map(|frame| frame.len()).sum();
            stream.bytes -= lost;
        }
        (socket.up.cut, socket.down.cut) = (true, true);
        let (up, down, device) = (socket.up.last, socket.down.last, socket.device);
        note!(self, "socket {number} breaks, {how:?}");
        if how == Cut::Told {
            let (one, other) = (self.one_way(device), self.one_way(device));
            self.schedule_at(up.max(self.now()) + one, Event::Gone(number, End::Server));
            self.schedule_at(down.max(self.now()) + other, Event::Gone(number, End::Client));
        }
    }

    /// The server's process ended: its sockets break.
    pub(super) fn cut_all(&mut self, how: Cut) {
        let numbers: Vec<_> = self.sockets.sockets.keys().copied().collect();
        for number in numbers {
            if let Some(socket) = self.sockets.sockets.get_mut(&number) {
                socket.server_open = false;
                socket.session = None;
            }
            self.cut(number, how);
        }
    }

    fn one_way(&mut self, device: DeviceNumber) -> u64 {
        let clogged = self.devices[device].clogged_ms;
        between(&mut self.random, self.weather.latency) + if clogged > 0 { self.random.below(clogged) } else { 0 }
    }

    /// The device that an event has to reach over the network; none if it needs no network.
    pub(super) fn over_network(&self, event: &Event) -> Option<DeviceNumber> {
        let number = match event {
            Event::Reaches(number) | Event::Opened(number) | Event::Up(number) | Event::Down(number) => number,
            Event::Gone(number, _) => number,
            _ => return None,
        };
        self.sockets.sockets.get(number).map(|socket| socket.device)
    }
}
