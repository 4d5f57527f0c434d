//! `cargo xtask demo`: attaches a pod to a network, visits its hostPort and detaches it again.
//!
//! Network namespaces stand for three machines: one outside, a node, and a pod on it. They are those of the
//! end-to-end tests, so that the demonstration changes nothing on this machine. With `--kind` it sets up a
//! kind cluster ([`kind`]).

mod kind;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::time::Instant;

use serde_json::{Value, json};
use tests::kind::Kind;
use tests::{
    Chain, NODE, Needs, Plugins, Pod, TcpEcho, World, answers, differences, fetch, panic_message,
};

use crate::build;
use crate::command::Failure;
use crate::root::become_root;

const EXAMPLE: &str = include_str!("../../conflist/examples/node.conflist");
/// The ways to the hostPort, each with the namespace of the client.
const WAYS: [(&str, &str); 3] =
    [("outside", "192.0.2.10:8080"), (NODE, "127.0.0.1:8080"), ("pod", "192.0.2.10:8080")];

/// The options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Set up a kind cluster instead: localhost:8080 of Docker's host, the hostPort of an ingress
    /// controller, kube-proxy's rules. Also needs Debian's package nginx
    #[arg(long)]
    kind: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    println!("Building the plugins");
    build::build_all()?;
    become_root()?;
    let plugins = Plugins::ours();
    let (needs, demonstrate): (_, fn(&Plugins) -> _) = if options.kind {
        (Kind::needs(&plugins), kind::demonstrate)
    } else {
        let needs = Needs::plugins(&plugins, &["bridge", "host-local", "portmap"]);
        (needs.tools(&["iptables", "conntrack"]), demonstrate)
    };
    if let Some(missing) = needs.missing() {
        return Err(Failure::Demo(missing));
    }
    // The tests' functions panic where a test must fail; the message becomes this task's error.
    set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| demonstrate(&plugins)));
    outcome.unwrap_or_else(|panic| Err(Failure::Demo(panic_message(panic.as_ref()))))
}

fn demonstrate(plugins: &Plugins) -> Result<(), Failure> {
    let world = World::new(&["outside", "pod"]);
    world.connect((NODE, "uplink", &["192.0.2.10/24"]), ("outside", "uplink", &["192.0.2.1/24"]));
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let example =
        serde_json::from_str(EXAMPLE).map_err(|error| Failure::Demo(error.to_string()))?;
    let network = Chain::of(&world, plugins, example).ports(&ports);
    let pod = Pod::new("pod");
    // What stays for the next pod, such as the bridge, is there before this one.
    network.add(&pod);
    network.del(&pod);
    let before = state(&world);

    println!("\nADD: the chain of conflist/examples/node.conflist, hostPort 8080 -> 80");
    let result = timed("ADD", || network.add(&pod));
    println!("{result:#}");
    timed("CHECK", || network.check(&pod));

    println!("\nThe page, fetched through the hostPort:");
    let page = TcpEcho::start(&world, "pod", "[::]:80", "page");
    for (netns, address) in WAYS {
        let what = format!("from {netns}, by {address}");
        let answer = timed(&what, || fetch(&world, netns, address));
        let answer = answer.map_err(|error| Failure::Demo(format!("{what}: {error}")))?;
        if !answer.starts_with("page ") {
            return Err(Failure::Demo(format!("{what}: another page: {answer:?}")));
        }
    }
    drop(page);

    println!("\nThe chains and rules that the packet passes, as iptables shows them:");
    let rules = world.sh(NODE, "iptables -t nat -S");
    let is_on_the_way = |rule: &&str| rule.contains("CNI-HOSTPORT-") || rule.contains("CNI-DN-");
    rules.lines().filter(is_on_the_way).for_each(|rule| println!("  {rule}"));

    println!("\nDEL");
    timed("DEL", || network.del(&pod));
    let open = WAYS.iter().find(|(netns, address)| answers(&world, netns, address));
    if let Some((netns, address)) = open {
        return Err(Failure::Demo(format!("{address} still answers {netns}")));
    }
    println!("  port 8080 of the node no longer answers");
    let left = differences(&before, &state(&world));
    let flows = world.conntrack().into_iter().filter(|flow| flow.contains("port=8080"));
    let left: Vec<_> = left.iter().map(ToString::to_string).chain(flows).collect();
    if !left.is_empty() {
        return Err(Failure::Demo(format!("left of the pod: {}", left.join("; "))));
    }
    println!("  links, addresses, routes, rules, files and connections are as before the pod");
    println!("\nAll checks passed.");
    Ok(())
}

/// The state of the node and the pod, without the file in which host-local keeps the last address.
fn state(world: &World) -> Value {
    let mut state = world.snapshot_of(&[NODE, "pod"]);
    if let Some(files) = state["files"].as_object_mut() {
        files.retain(|path, _| !path.contains("/last_reserved_ip."));
    }
    state
}

fn timed<T>(what: impl Display, step: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = step();
    println!("  {what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    done
}
