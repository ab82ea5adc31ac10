//! Where are the IMP's files? Compiled in: no caller can name others.

/// Directory below which configuration is (`make install SYSCONFDIR=`).
const SYSCONFDIR: &str = match option_env!("FLUX_SYSCONFDIR") {
    Some(directory) => directory,
    None => "/usr/local/etc",
};

/// Directory in which requests are remembered; its parent must be there.
pub const REPLAY: &str = "/var/lib/flux-imp";

/// Returns the directory of the IMP's configuration.
pub fn imp_config() -> String {
    format!("{SYSCONFDIR}/flux/imp/conf.d")
}

/// Returns the directory of the configuration of signatures.
pub fn sign_config() -> String {
    format!("{SYSCONFDIR}/flux/security/conf.d")
}
