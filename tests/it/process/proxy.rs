//! A bad network in user space: every datagram between the nodes goes through here, and is cut,
//! delayed, reordered, dropped, repeated or throttled on the way.
//!
//! Each region has a *front*, which is the address that regions.toml gives. What one node sends to
//! the front of another comes out of the sender's own front, so that both sides see only fronts, and
//! the proxy knows the pair and the direction of every datagram.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What happens to datagrams of one direction between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Weather {
    pub(super) cut: bool,
    /// The least delay, and how much more there may be: what differs by chance is reordered.
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// The shares that are lost and that come twice.
    pub(super) drop: f64,
    pub(super) duplicate: f64,
    /// Bytes per second, with a queue of a tenth of a second before it.
    pub(super) rate: Option<u64>,
}

impl Weather {
    pub(super) const CUT: Self = Self { cut: true, ..Self::CLEAR };
    pub(super) const CLEAR: Self = Self {
        cut: false,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        drop: 0.0,
        duplicate: 0.0,
        rate: None,
    };

    /// Every kind of trouble at once, each in a measure that QUIC is made for.
    pub(super) const ROUGH: Self = Self {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(15),
        drop: 0.02,
        duplicate: 0.02,
        ..Self::CLEAR
    };
}

/// The network between some nodes.
#[derive(Debug)]
pub(super) struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// By the place of a region: its front, and where its node is.
    fronts: Vec<UdpSocket>,
    nodes: Vec<SocketAddr>,
    sky: Mutex<Sky>,
    changed: Condvar,
    stop: AtomicBool,
    carried: AtomicU64,
}

#[derive(Debug)]
struct Sky {
    weather: BTreeMap<(usize, usize), Weather>,
    /// When the last datagram of a throttled direction is through.
    busy_until: BTreeMap<(usize, usize), Instant>,
    flying: BinaryHeap<Reverse<Flying>>,
    random: ChaCha8Rng,
    number: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Instant,
    number: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Proxy {
    /// Stands between nodes, each given by its front and its own address.
    pub(super) fn start(places: &[(SocketAddr, SocketAddr)], seed: u64) -> Self {
        let fronts = places.iter().map(|(front, _)| UdpSocket::bind(front).unwrap()).collect();
        let sky = Sky {
            weather: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            flying: BinaryHeap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            number: 0,
        };
        let shared = Arc::new(Shared {
            fronts,
            nodes: places.iter().map(|(_, node)| *node).collect(),
            sky: Mutex::new(sky),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            carried: AtomicU64::new(0),
        });
        let threads = (0..places.len()).map(|to| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.receive(to))
        });
        let mut threads: Vec<_> = threads.collect();
        let carrier = Arc::clone(&shared);
        threads.push(thread::spawn(move || carrier.carry()));
        Self { shared, threads }
    }

    /// Changes the weather from one node to another.
    pub(super) fn set(&self, from: usize, to: usize, weather: Weather) {
        self.shared.sky.lock().unwrap().weather.insert((from, to), weather);
    }

    /// Changes the weather of both directions.
    pub(super) fn set_both(&self, one: usize, other: usize, weather: Weather) {
        self.set(one, other, weather);
        self.set(other, one, weather);
    }

    /// Changes the weather everywhere.
    pub(super) fn set_all(&self, weather: Weather) {
        for one in 0..self.shared.nodes.len() {
            (0..one).for_each(|other| self.set_both(one, other, weather));
        }
    }

    /// Counts the bytes that have arrived.
    pub(super) fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the test itself is told already.
            drop(thread.join());
        }
    }
}

impl Shared {
    /// Takes what comes to the front of a node.
    fn receive(&self, to: usize) {
        let front = &self.fronts[to];
        front.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut buffer = vec![0; 65_536];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((length, source)) = front.recv_from(&mut buffer) else { continue };
            // A stranger is none of the nodes.
            if let Some(from) = self.nodes.iter().position(|node| *node == source) {
                self.sky.lock().unwrap().launch(from, to, &buffer[..length]);
                self.changed.notify_all();
            }
        }
    }

    /// Hands over what is due.
    fn carry(&self) {
        let mut sky = self.sky.lock().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = sky.flying.peek().map(|Reverse(next)| next.due);
            let pause = match due {
                Some(due) if due <= now => {
                    let Some(Reverse(landing)) = sky.flying.pop() else { continue };
                    // The receiver may be dead at the moment, which a network does not tell.
                    drop(self.fronts[landing.from].send_to(&landing.bytes, self.nodes[landing.to]));
                    self.carried.fetch_add(landing.bytes.len() as u64, Ordering::Relaxed);
                    continue;
                }
                Some(due) => due - now,
                None => Duration::from_millis(50),
            };
            sky = self.changed.wait_timeout(sky, pause).unwrap().0;
        }
    }
}

impl Sky {
    fn launch(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let weather = self.weather.get(&(from, to)).copied().unwrap_or_default();
        if weather.cut || self.random.random_bool(weather.drop) {
            return;
        }
        let copies = 1 + usize::from(self.random.random_bool(weather.duplicate));
        for _ in 0..copies {
            let Some(through) = self.through(from, to, weather, bytes.len()) else { return };
            let due = through + weather.delay + weather.jitter.mul_f64(self.random.random());
            self.number += 1;
            let number = self.number;
            self.flying.push(Reverse(Flying { due, number, from, to, bytes: bytes.to_vec() }));
        }
    }

    /// Returns when a datagram is through the bottleneck; `None` if the queue before it is full.
    fn through(
        &mut self,
        from: usize,
        to: usize,
        weather: Weather,
        bytes: usize,
    ) -> Option<Instant> {
        let now = Instant::now();
        let Some(rate) = weather.rate else { return Some(now) };
        let busy = self.busy_until.entry((from, to)).or_insert(now);
        let start = (*busy).max(now);
        if start - now > Duration::from_millis(100) {
            return None;
        }
        *busy = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        Some(*busy)
    }
}
