//! Who is behind a user id? A dropped helper asks the name service, whose modules are nobody's to audit.
//!
//! It answers any number of questions: `uid u32, groups u8` is followed by a frame of [`wire`] with the entry, or `nobody`.

use std::time::Duration;

use flux_sign::kv::Kv;

use crate::helpers::names;
use crate::sandbox::Helper;
use crate::wire;

/// How long the name service may take for one user.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Longest name of a user.
const NAME_MAX: usize = 256;
/// Most groups that Linux gives a process.
const GROUPS_MAX: usize = 65536;

/// A user as the name service knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Login name; not empty.
    pub name: String,
    /// Primary group.
    pub gid: u32,
    /// The groups asked for, the primary one among them, in ascending order.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The helper.
#[derive(Debug)]
pub struct Resolver(Helper);

impl Resolver {
    /// Starts the helper.
    ///
    /// # Errors
    /// What to log.
    pub fn start() -> Result<Self, String> {
        Helper::start("helper for names", names::answer).map(Resolver)
    }

    /// Asks for a user, with all groups or the primary one; [`answer`](Resolver::answer) takes the answer, before anything else is asked.
    ///
    /// # Errors
    /// What to log.
    pub fn ask(&mut self, uid: u32, groups: bool) -> Result<(), String> {
        self.0.ask(&[&uid.to_ne_bytes()[..], &[groups.into()]].concat())
    }

    /// Waits for the answer about a user.
    ///
    /// # Errors
    /// What to log; a user who is not there is an error too.
    pub fn answer(&mut self, uid: u32) -> Result<User, String> {
        let kv = self.0.receive(TIME_MAX)?;
        decode(uid, &kv).ok_or(format!("userid {uid} is not known to the name service"))
    }
}

/// Bounds and checks what the helper says.
fn decode(uid: u32, kv: &Kv) -> Option<User> {
    let path = |key| {
        let text = kv.get_str(key)?;
        let fits = text.len() <= wire::TEXT_MAX && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    };
    let name = kv.get_str("name")?;
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return None;
    }
    let groups = kv.get_str("groups")?.split(',').take(GROUPS_MAX + 1);
    let mut groups: Vec<u32> = groups.map(|gid| gid.parse().ok()).collect::<Option<_>>()?;
    groups.sort_unstable();
    groups.dedup();
    let gid = u32::try_from(kv.get_int("gid")?).ok()?;
    let valid = groups.len() <= GROUPS_MAX && groups.contains(&gid) && !groups.contains(&u32::MAX);
    valid.then_some(User {
        uid,
        name: name.to_owned(),
        gid,
        groups,
        home: path("home")?,
        shell: path("shell")?,
    })
}

#[cfg(test)]
mod tests {
    use flux_sign::kv::Value;

    use super::*;

    fn entry(name: &str, groups: &str) -> Kv {
        let mut kv = Kv::new();
        let text = |text: &str| Value::String(text.to_owned());
        kv.put("name", text(name)).unwrap();
        kv.put("gid", Value::Int(7)).unwrap();
        kv.put("home", text("/home/a")).unwrap();
        kv.put("shell", text("/bin/sh")).unwrap();
        kv.put("groups", text(groups)).unwrap();
        kv
    }

    #[test]
    fn entries_are_checked() {
        assert_eq!(decode(5, &entry("a", "7,9")).unwrap().groups, [7, 9]);
        let long = "x".repeat(300);
        let many = (0..=GROUPS_MAX)
            .map(|gid| gid.to_string())
            .collect::<Vec<_>>()
            .join(",");
        for (name, groups) in [
            ("", "7"),
            (long.as_str(), "7"),
            ("a\n", "7"),
            ("a", "9"),
            ("a", ""),
            ("a", "7,-1"),
            ("a", "7,4294967295"),
            ("a", many.as_str()),
        ] {
            assert_eq!(decode(5, &entry(name, groups)), None, "{name} {}", groups.len());
        }
        assert_eq!(decode(5, &Kv::new()), None);
    }
}
