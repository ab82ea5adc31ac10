//! Who is at home on a site?

/// A user of the site.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Name, and name of the primary group.
    pub name: &'static str,
    /// User id, and id of the primary group.
    pub id: u32,
}

/// The instance owner.
pub const FLUX: User = User {
    name: "flux",
    id: 64100,
};
/// A guest, also in group `project`.
pub const ALICE: User = User {
    name: "alice",
    id: 64101,
};
/// Another guest.
pub const BOB: User = User {
    name: "bob",
    id: 64102,
};
/// The machine's root, who is a guest unless he is allowed more.
pub const ROOT: User = User { name: "root", id: 0 };
/// A group of `alice`'s.
pub const PROJECT: u32 = 64110;

/// Returns the words that become a user, for as long as the parent lives.
pub(super) fn as_user(user: User) -> Vec<String> {
    let words = [
        "setpriv",
        &format!("--reuid={}", user.id),
        &format!("--regid={}", user.id),
        "--init-groups",
        "--pdeathsig=KILL",
    ];
    words.map(str::to_owned).to_vec()
}
