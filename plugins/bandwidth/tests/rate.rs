//! The rate of packets to and from a pod: TCP, measured by the receiver. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Call, Pod};
use serde_json::json;
use testbed::on_a_node;

/// Bytes of a TCP packet with timestamps on the link, and the data in it.
const FRAME: f64 = 1514.0;
const DATA: f64 = 1448.0;
/// The time until the burst is used up.
const WARM_UP: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(2);
/// How often a measurement is repeated on a busy machine.
const TRIES: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Direction {
    IntoPod,
    OutOfPod,
}

/// Bits per second on the link.
fn measure(pod: &Pod, direction: Direction) -> f64 {
    let listen = |address: &str| TcpListener::bind((address, 0)).unwrap();
    let (mut sender, mut receiver) = match direction {
        Direction::IntoPod => {
            let listener = pod.enter(|| listen("10.88.0.2"));
            let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (sender, listener.accept().unwrap().0)
        }
        Direction::OutOfPod => {
            let listener = listen("10.88.0.1");
            let address = listener.local_addr().unwrap();
            let sender = pod.enter(|| TcpStream::connect(address)).unwrap();
            (sender, listener.accept().unwrap().0)
        }
    };
    let sending = thread::spawn(move || {
        let data = vec![0; 64 * 1024];
        // Until the receiver closes the connection.
        while sender.write_all(&data).is_ok() {}
    });
    let mut buffer = vec![0; 256 * 1024];
    let mut receive_for = |time: Duration| {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < time {
            bytes += receiver.read(&mut buffer).unwrap();
        }
        let bytes = f64::from(u32::try_from(bytes).unwrap());
        bytes * 8.0 * FRAME / DATA / start.elapsed().as_secs_f64()
    };
    receive_for(WARM_UP);
    let rate = receive_for(WINDOW);
    drop(receiver);
    sending.join().unwrap();
    rate
}

#[track_caller]
fn assert_rate(pod: &Pod, direction: Direction, asked: f64) {
    let mut seen = Vec::new();
    let mut is_right = || {
        let rate = measure(pod, direction);
        seen.push(rate);
        (rate / asked - 1.0).abs() <= 0.05
    };
    let found = (0..TRIES).any(|_| is_right());
    assert!(found, "{direction:?}: asked for {asked} bit/s, seen {seen:?}");
}

#[test]
fn each_direction_has_its_own_rate() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod).with(&json!({
            "ingressRate": 10_000_000, "ingressBurst": 400_000,
            "egressRate": 20_000_000, "egressBurst": 400_000,
        }));
        call.run("ADD").unwrap();
        assert_rate(&pod, Direction::IntoPod, 10e6);
        assert_rate(&pod, Direction::OutOfPod, 20e6);
    });
}

#[test]
fn the_other_direction_is_not_limited() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod).with(&json!({
            "ingressRate": 10_000_000, "ingressBurst": 400_000,
            "egressRate": 0, "egressBurst": 0,
        }));
        call.run("ADD").unwrap();
        assert!(measure(&pod, Direction::OutOfPod) > 50e6);
    });
}
