//! A set of namespaces that stands for a machine.
//!
//! ```text
//!   outside 192.168.77.1 ──veth── eth0 192.168.77.2, default route to outside
//! ```

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context;
use netlink::{Connection, Route, VethPeer, netns};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

type Work = Box<dyn FnOnce() + Send>;

/// A machine of a test: network and mount namespaces of its own, held by a thread in them.
pub struct Host {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    outside: File,
}

impl Host {
    /// The host's address, on its only device `eth0`.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
    /// The address of the world outside.
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

    /// Makes one.
    ///
    /// # Errors
    /// Without the rights of root, or when the kernel lacks namespaces, bridges or veth pairs.
    pub fn new() -> anyhow::Result<Self> {
        let outside = netns::create().context("cannot make a network namespace; are you root?")?;
        let (work, incoming) = mpsc::channel::<Work>();
        let (started, result) = mpsc::channel();
        let thread = std::thread::Builder::new().name("host".to_owned()).spawn(move || {
            let entered = enter();
            let is_entered = entered.is_ok();
            if started.send(entered).is_ok() && is_entered {
                for work in incoming {
                    work();
                }
            }
        })?;
        result.recv().context("the host's thread ended")??;
        let host = Self { work: Some(work), thread: Some(thread), outside };
        host.connect()?;
        Ok(host)
    }

    /// Runs on the host. Programs that `work` starts are on it too.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let work: Work = Box::new(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // The receiver waits below, unless its thread is gone too.
            done.send(outcome).ok();
        });
        let sender = self.work.as_ref().expect("it is there until the host is dropped");
        sender.send(work).expect("the host's thread ends only with the host");
        match result.recv().expect("the host's thread answers") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs in the world outside, from where a client would come.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        Ok(netns::inside(&self.outside, work)?)
    }

    fn connect(&self) -> anyhow::Result<()> {
        let outside = self.outside.try_clone()?;
        self.run(move || -> anyhow::Result<()> {
            let mut host = Connection::open()?;
            up(&mut host, "lo", None)?;
            host.add_veth("eth0", 1500, &VethPeer { name: "host0", netns: outside.as_fd() })?;
            let eth0 = up(&mut host, "eth0", Some(Self::ADDRESS))?;
            netns::inside(&outside, || -> anyhow::Result<()> {
                let mut world = Connection::open()?;
                up(&mut world, "lo", None)?;
                up(&mut world, "host0", Some(Self::OUTSIDE)).map(drop)
            })??;
            let destination = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            let gateway = Some(IpAddr::V4(Self::OUTSIDE));
            host.set_route(&Route { destination, gateway, index: eth0 })?;
            Ok(())
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was already passed on.
            thread.join().ok();
        }
    }
}

fn enter() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("cannot make namespaces")?;
    let none: Option<&str> = None;
    // What is mounted here must not appear in the real machine.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // Shared memory that a killed program leaves goes with the host.
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)?;
    Ok(())
}

fn up(connection: &mut Connection, name: &str, address: Option<Ipv4Addr>) -> anyhow::Result<u32> {
    let link = connection.link(name)?.with_context(|| format!("device {name} is not there"))?;
    if let Some(address) = address {
        connection.add_address(link.index, IpAddr::V4(address), 24)?;
    }
    connection.set_up(link.index)?;
    Ok(link.index)
}
