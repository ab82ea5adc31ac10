//! What does the name service say? Asked by a helper that has no privilege, for [`crate::resolve`].

use std::io::Read;
use std::os::unix::net::UnixStream;

use flux_sign::kv::{Kv, Value};

use crate::sys::users;
use crate::wire;

/// The helper's loop; ends with the stream.
pub fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    let mut question = [0; 5];
    while stream.read_exact(&mut question).is_ok() {
        let [a, b, c, d, groups] = question;
        let uid = u32::from_ne_bytes([a, b, c, d]);
        let nobody = || {
            let mut kv = Kv::new();
            let _put = kv.put("nobody", Value::Bool(true));
            kv
        };
        let kv = look_up(uid, groups != 0).unwrap_or_else(nobody);
        wire::send(&mut stream, &kv)?;
    }
    Ok(())
}

/// Of whom only the name counts, the name service is not asked for groups: that takes longest.
fn look_up(uid: u32, groups: bool) -> Option<Kv> {
    let entry = users::by_uid(uid).ok()??;
    let groups = match groups {
        true => users::groups(&entry.name, entry.gid).ok()?,
        false => vec![entry.gid],
    };
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    let mut kv = Kv::new();
    kv.put("name", Value::String(entry.name)).ok()?;
    kv.put("gid", Value::Int(i64::from(entry.gid))).ok()?;
    kv.put("home", Value::String(entry.home)).ok()?;
    kv.put("shell", Value::String(entry.shell)).ok()?;
    kv.put("groups", Value::String(groups.join(","))).ok()?;
    Some(kv)
}
