//! Who a process runs as, and what it may do.

use std::io;
use std::path::Path;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::step::{Step, StepError};
use super::tree::Root;
use crate::spec::{Capabilities, User};

/// More than any image's; the rest is not read.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;
/// The kernel has 64 bits for them, of which 41 are named.
const CAPABILITY_LAST: u32 = 63;

/// A user as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Looks a user up in the image.
pub(super) fn look_up(root: &Root, user: &User) -> Result<Identity, StepError> {
    let read = |path: &str| {
        let bytes =
            root.read(Path::new(path), ACCOUNTS_BYTES_MAX).step(|| format!("reading {path}"))?;
        Ok::<_, StepError>(String::from_utf8_lossy(&bytes).into_owned())
    };
    resolve(user, &read("/etc/passwd")?, &read("/etc/group")?).map_err(StepError::plain)
}

fn resolve(user: &User, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.name.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let accounts = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let number = name.parse::<u32>().ok();
    let account = accounts().find(|fields| {
        fields.len() >= 6
            && match number {
                Some(number) => fields[2].parse() == Ok(number),
                None => fields[0] == name,
            }
    });
    let mut identity = Identity { home: "/".to_owned(), ..Identity::default() };
    match (&account, number) {
        (Some(fields), _) => {
            identity.uid = fields[2].parse().map_err(|_| format!("bad user number of {name:?}"))?;
            identity.gid =
                fields[3].parse().map_err(|_| format!("bad group number of {name:?}"))?;
            fields[5].clone_into(&mut identity.home);
        }
        (None, Some(number)) => identity.uid = number,
        (None, None) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    }
    if let Some(wanted) = group_name {
        identity.gid = group_number(group, wanted)?;
    }
    if let Some(gid) = user.gid {
        identity.gid = gid;
    }
    let mut groups = vec![identity.gid];
    groups.extend(&user.supplemental);
    if let (true, Some(fields)) = (user.merge_groups, &account) {
        groups.extend(memberships(group, fields[0]));
    }
    groups.sort_unstable();
    groups.dedup();
    identity.groups = groups;
    Ok(identity)
}

fn group_number(group: &str, wanted: &str) -> Result<u32, String> {
    let found = group.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        (fields.len() >= 3 && fields[0] == wanted).then(|| fields[2].parse().ok())?
    });
    found
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.len() >= 4 && fields[3].split(',').any(|name| name == user);
        member.then(|| fields[2].parse().ok())?
    })
}

/// Becomes `identity` with no more than `capabilities`.
pub(super) fn assume(
    identity: &Identity,
    capabilities: Capabilities,
    no_new_privs: bool,
) -> Result<(), StepError> {
    for number in 0..=CAPABILITY_LAST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if capabilities.bounding & (1 << number) == 0 {
            // Numbers that the kernel does not know are refused, and need no removing.
            rustix::thread::remove_capability_from_bounding_set(one).ok();
        }
    }
    rustix::thread::set_keep_capabilities(true).step(|| "keeping capabilities".to_owned())?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).step(|| "setgroups".to_owned())?;
    let gid = Gid::from_raw(identity.gid);
    setresgid(gid, gid, gid).step(|| "setgid".to_owned())?;
    let uid = Uid::from_raw(identity.uid);
    setresuid(uid, uid, uid).step(|| "setuid".to_owned())?;
    set_capabilities(capabilities).step(|| "unable to apply caps".to_owned())?;
    if no_new_privs {
        rustix::thread::set_no_new_privs(true).step(|| "set no_new_privs".to_owned())?;
    }
    // Cleared by the changes above, so it comes after them: no container outlives its shim.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .step(|| "set parent death signal".to_owned())
}

fn set_capabilities(wanted: Capabilities) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted.bits();
    // What stays effective for others than root is decided when the program is run.
    let permitted = CapabilitySet::from_bits_retain(wanted.bounding & held);
    let ambient = wanted.ambient & held;
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::from_bits_retain(ambient),
    };
    rustix::thread::set_capabilities(None, sets)?;
    for number in (0..=CAPABILITY_LAST).filter(|number| ambient & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nextra:x:50:app,other\nnum:x:7:other\n";

    fn check(name: &str, gid: Option<u32>, merge_groups: bool) -> Result<Identity, String> {
        let user = User { name: name.into(), gid, supplemental: vec![9], merge_groups };
        resolve(&user, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_lead_to_the_same_account() {
        let app = check("app", None, true).unwrap();
        assert_eq!((app.uid, app.gid, &*app.home), (1000, 1001, "/home/app"));
        assert_eq!(app.groups, [9, 50, 1001]);
        assert_eq!(check("1000", None, true).unwrap(), app);
        assert_eq!(check("1000", None, false).unwrap().groups, [9, 1001]);
    }

    #[test]
    fn groups_may_be_given_beside_the_user() {
        assert_eq!(check("app:num", None, false).unwrap().gid, 7);
        assert_eq!(check("app:num", Some(3), false).unwrap().gid, 3);
        assert_eq!(check("77:88", None, false).unwrap().gid, 88);
        assert_eq!(check("", None, false).unwrap().uid, 0);
    }

    #[test]
    fn an_unknown_name_is_an_error_and_an_unknown_number_is_not() {
        let error = check("nobody", None, false).unwrap_err();
        assert_eq!(error, "unable to find user nobody: no matching entries in passwd file");
        assert!(check("app:nope", None, false).unwrap_err().contains("unable to find group nope"));
        let unknown = check("4242", None, true).unwrap();
        assert_eq!((unknown.uid, unknown.gid, &*unknown.home), (4242, 0, "/"));
    }
}
