//! The node agent is killed again and again while pods come and go: nothing of them may stay, run
//! twice, or end without its exit code.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use clock::Clock;
use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::pause_for;
use crate::parts::{Parts, Request};

const PODS_PATH: &str = "/api/v1/namespaces/default/pods";
/// How many pods are made, unless `IRONCLAD_TEST_PODS` says otherwise: 500 take a minute, or three
/// where other tests want the processors, too.
const PODS: usize = 200;
/// Pods at one time. A node takes 110, and has addresses for 253.
const ALIVE: usize = 60;
/// For each pod; far more than it takes when none is lost.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(40);
/// The agent looks for leftovers every ten seconds.
const PATIENCE_AT_END: Duration = Duration::from_secs(40);

/// Numbers that follow from the first one.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.roll(to - from))
    }
}

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It ends with this code, after an init container if so.
    Ends(u8, bool),
    /// It is deleted when it runs.
    Stays,
    /// It is deleted whatever it does.
    Early,
    /// Its object is removed at once, whatever it does.
    Forced,
}

struct Tracked {
    fate: Fate,
    deleted: bool,
    /// It was seen running or ended.
    ran: bool,
    restarts: u64,
}

struct Test {
    parts: Parts,
    dice: Dice,
    seed: u64,
    pods: BTreeMap<String, Tracked>,
    made: usize,
    kills: usize,
    started: Instant,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn now() -> Instant {
    clock::SystemClock.monotonic()
}

impl Test {
    fn new() -> Self {
        let seed = number("IRONCLAD_TEST_SEED").unwrap_or(u64::from(std::process::id()));
        let mut parts = Parts::new();
        parts.start_api_server();
        parts.start_kubelet();
        parts.until("the node is registered", || parts.get("/api/v1/nodes/node-1"));
        std::fs::create_dir(parts.path("starts")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(parts.path("starts"), mode).unwrap();
        let (dice, pods) = (Dice(seed), BTreeMap::new());
        let test = Self { parts, dice, seed, pods, made: 0, kills: 0, started: now() };
        // What controllers would do.
        let cidr = json!({ "spec": { "podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"] } });
        let name = |name: &str| json!({ "metadata": { "name": name } });
        let mut data = name("data");
        data["data"] = json!({ "key": "dmFsdWU=" });
        let path = |kind: &str| format!("/api/v1/namespaces/default/{kind}");
        test.send(vec![
            (Method::PATCH, "/api/v1/nodes/node-1".to_owned(), Some(cidr)),
            (Method::POST, path("serviceaccounts"), Some(name("default"))),
            (Method::POST, path("secrets"), Some(data.clone())),
            (Method::POST, path("configmaps"), Some(data)),
        ]);
        test.parts.node_is_ready();
        test
    }

    fn send(&self, requests: Vec<Request>) {
        for answer in self.parts.batch(requests) {
            if let Err(error) = answer {
                self.fail(&error.to_string());
            }
        }
    }

    fn fail(&self, what: &str) -> ! {
        let Self { seed, made, kills, .. } = self;
        let describe = |(name, pod): (&String, &Tracked)| format!("{name} {:?}\n", pod.fate);
        let pods: String = self.pods.iter().map(describe).collect();
        panic!("seed {seed}, {made} pods, {kills} kills: {what}\n{pods}{}", self.parts.logs());
    }

    fn run(&mut self, count: usize) {
        let patience = Duration::from_secs(60) + PATIENCE * u32::try_from(count).unwrap();
        let mut kill_at = now() + self.dice.milliseconds(200, 1500);
        while self.made < count || !self.pods.is_empty() {
            if now() >= kill_at {
                self.kill_agent();
                // Mostly it gets to work, and sometimes it is killed while it begins.
                let wait = if self.dice.roll(3) == 0 { (20, 400) } else { (400, 1500) };
                kill_at = now() + self.dice.milliseconds(wait.0, wait.1);
            }
            self.create(count);
            self.look();
            if now().duration_since(self.started) > patience {
                self.fail("it takes too long");
            }
            pause_for(PAUSE);
        }
        let begun = now();
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            if now().duration_since(begun) > PATIENCE_AT_END {
                self.fail(&format!("this is left:\n{}", left.join("\n")));
            }
            pause_for(PAUSE);
        }
    }

    fn kill_agent(&mut self) {
        self.parts.kill("kubelet");
        self.kills += 1;
        if self.dice.roll(2) == 0 {
            // The API goes on without it.
            self.look();
            pause_for(self.dice.milliseconds(0, 300));
        }
        self.parts.start_kubelet();
    }

    fn create(&mut self, count: usize) {
        let burst = self.dice.roll(12);
        let mut requests = Vec::new();
        for _ in 0..burst {
            if self.made >= count || self.pods.len() >= ALIVE {
                break;
            }
            let name = format!("pod-{}", self.made);
            let fate = match self.dice.roll(8) {
                0..3 => Fate::Ends(u8::try_from(self.dice.roll(100)).unwrap(), false),
                3 => Fate::Ends(u8::try_from(self.dice.roll(100)).unwrap(), true),
                4 | 5 => Fate::Stays,
                6 => Fate::Early,
                _ => Fate::Forced,
            };
            let pod = self.pod(&name, fate);
            requests.push((Method::POST, PODS_PATH.to_owned(), Some(pod)));
            let tracked = Tracked { fate, deleted: false, ran: false, restarts: 0 };
            self.pods.insert(name, tracked);
            self.made += 1;
        }
        if !requests.is_empty() {
            self.send(requests);
        }
    }

    fn pod(&mut self, name: &str, fate: Fate) -> Value {
        let sleep = self.dice.roll(600).to_string();
        let ends = |note: &str, code: &str| json!(["note", note, "sleep", sleep, "fail", code]);
        let mounts = json!([
            { "name": "starts", "mountPath": "/starts" },
            { "name": "memory", "mountPath": "/memory" },
            { "name": "secret", "mountPath": "/secret" },
            { "name": "map", "mountPath": "/key", "subPath": "key" },
        ]);
        let container = |name: &str, args: Value| json!({ "name": name, "image": POD_IMAGE, "args": args, "volumeMounts": mounts });
        let note = format!("/starts/{name}");
        let args = match fate {
            Fate::Ends(code, _) => ends(&note, &code.to_string()),
            _ => json!(["note", note, "wait"]),
        };
        let init = matches!(fate, Fate::Ends(_, true));
        let init = init.then(|| container("init", ends(&format!("{note}-init"), "0")));
        let never = matches!(fate, Fate::Ends(..));
        json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": "node-1",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": if never { "Never" } else { "Always" },
                "initContainers": init.into_iter().collect::<Vec<_>>(),
                "containers": [container("c", args)],
                "volumes": [
                    { "name": "starts", "hostPath": { "path": self.parts.path("starts") } },
                    { "name": "memory", "emptyDir": { "medium": "Memory" } },
                    { "name": "secret", "secret": { "secretName": "data" } },
                    { "name": "map", "configMap": { "name": "data" } },
                ],
            },
        })
    }

    /// Looks at all pods, and deletes those whose time has come.
    fn look(&mut self) {
        let Some(list) = self.parts.get(PODS_PATH) else { self.fail("pods are not listed") };
        let seen: BTreeMap<&str, &Value> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| (pod["metadata"]["name"].as_str().unwrap(), pod))
            .collect();
        let gone: Vec<String> =
            self.pods.keys().filter(|name| !seen.contains_key(name.as_str())).cloned().collect();
        for name in gone {
            let Some(pod) = self.pods.remove(&name) else { continue };
            self.check_gone(&name, &pod);
        }
        let mut requests = Vec::new();
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            let fate = self.pods[&name].fate;
            let status = &seen[name.as_str()]["status"];
            let ended = self.check_status(&name, fate, status);
            let running = status["phase"] == "Running";
            let due = match fate {
                Fate::Ends(..) => ended,
                Fate::Stays => running && self.dice.roll(4) == 0,
                Fate::Early | Fate::Forced => self.dice.roll(10) == 0,
            };
            let pod = self.pods.get_mut(&name).unwrap();
            pod.ran |= ended || running;
            let restarts = &status["containerStatuses"][0]["restartCount"];
            pod.restarts = restarts.as_u64().unwrap_or(0);
            if due && !pod.deleted {
                pod.deleted = true;
                let grace = if fate == Fate::Forced { "?gracePeriodSeconds=0" } else { "" };
                requests.push((Method::DELETE, format!("{PODS_PATH}/{name}{grace}"), None));
            }
        }
        if !requests.is_empty() {
            self.send(requests);
        }
    }

    /// Whether it has ended, as it had to.
    fn check_status(&self, name: &str, fate: Fate, status: &Value) -> bool {
        let phase = status["phase"].as_str().unwrap_or_default();
        if !matches!(phase, "Succeeded" | "Failed") {
            return false;
        }
        if let Fate::Ends(code, _) = fate {
            let wanted = if code == 0 { "Succeeded" } else { "Failed" };
            let ended = &status["containerStatuses"][0]["state"]["terminated"];
            if phase != wanted || ended["exitCode"] != code {
                self.fail(&format!("{name} did not end with {code}: {status}"));
            }
        }
        true
    }

    /// What runs once runs once, whoever looks after it.
    fn check_gone(&self, name: &str, pod: &Tracked) {
        let starts = |name: &str| {
            let noted = std::fs::read_to_string(self.parts.path("starts").join(name));
            noted.unwrap_or_default().lines().count()
        };
        let notes = (starts(name), starts(&format!("{name}-init")));
        let fits = match pod.fate {
            Fate::Ends(_, init) => notes == (1, usize::from(init)),
            // It may be seen running before its program has written a line.
            _ => notes.0 <= 1 && notes.1 == 0,
        };
        if !fits || !pod.deleted {
            let Tracked { fate, ran, restarts, deleted } = pod;
            self.fail(&format!(
                "{name} ({fate:?}, ran {ran}, deleted {deleted}, {restarts} restarts) was started \
                 {notes:?} times"
            ));
        }
    }

    /// Everything of pods that is still there.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let node = self.parts.path("node");
        let entries = |path: &Path| {
            let found = std::fs::read_dir(path).into_iter().flatten().flatten();
            found.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
        };
        for directory in [
            "kubelet/pods",
            "logs/pods",
            "runtime/sandboxes",
            "runtime/run",
            "node/network/leases",
            "images/leases",
        ] {
            let path = node.join(directory);
            assert!(path.is_dir(), "{directory}");
            left.extend(entries(&path));
        }
        let marked = node.display().to_string();
        left.extend(shims(&marked));
        left.extend(cgroups(&self.parts.cgroup));
        left.extend(self.parts.host.run(move || {
            let links = netlink::Connection::open().unwrap().links().unwrap();
            let links = links.into_iter().map(|link| link.name);
            let mut left: Vec<String> = links.filter(|name| name.starts_with("veth")).collect();
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|line| line.contains(&marked)).map(str::to_owned));
            left
        }));
        left
    }
}

/// Shims of sandboxes below a directory.
fn shims(directory: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| {
        let words = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let words: Vec<&str> = words.split('\0').collect();
        let ours = words.get(1) == Some(&"shim") && words.get(2)?.starts_with(directory);
        ours.then(|| format!("{} {}", process.path().display(), words.join(" ")))
    });
    lines.collect()
}

/// Cgroups below that of the cluster which are not the kubelet's own three.
fn cgroups(cgroup: &str) -> Vec<String> {
    fn walk(directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                let own = ["kubepods", "burstable", "besteffort"];
                if !own.iter().any(|own| name == *own) {
                    found.push(entry.path().display().to_string());
                }
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    walk(&root.join(&cgroup[1..]), &mut found);
    for controller in std::fs::read_dir(root).into_iter().flatten().flatten() {
        walk(&controller.path().join(&cgroup[1..]), &mut found);
    }
    found
}

#[test]
fn a_killed_agent_leaves_nothing_starts_nothing_twice_and_loses_no_exit_code() {
    let count = number("IRONCLAD_TEST_PODS").and_then(|n| usize::try_from(n).ok());
    let mut test = Test::new();
    test.run(count.unwrap_or(PODS));
    assert!(test.kills > test.made / 50, "{} kills", test.kills);
    // The agent that is left keeps no more open than it needs.
    let kubelet = test.parts.pid("kubelet");
    let open = std::fs::read_dir(format!("/proc/{kubelet}/fd")).unwrap().count();
    assert!(open < 100, "{open} descriptors");
}
