//! Did the user whom a request names really sign it? munged is asked, on a thread of its own, many requests at a time.
//!
//! The IMP, which trusts nobody, asks again on every node before it starts anything; a request that it would refuse is
//! refused here, where its author still waits for the answer.

use super::JobIngest;
use super::check::Checked;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::msg::Message;
use flux_sign::{PathChecks, Signer};
use std::path::PathBuf;
use std::sync::Arc;

/// What is signed and not checked yet.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Where `[sign]` is configured.
    directory: PathBuf,
    /// Read at the first need, and again after a reload.
    signer: Option<Arc<Signer>>,
    /// In the order in which they came.
    waiting: Vec<(Message, Checked)>,
    /// A batch is on the thread.
    busy: bool,
}

/// A batch's results, and the signer that was made for it.
struct Verdicts {
    signer: Result<Arc<Signer>, String>,
    /// `None` for a good signature.
    errors: Vec<Option<String>>,
}

impl Verifier {
    pub(super) fn new(directory: PathBuf) -> Self {
        Verifier {
            directory,
            signer: None,
            waiting: Vec::new(),
            busy: false,
        }
    }

    /// Returns a verifier with the site's configuration.
    pub(super) fn of_site() -> Self {
        Verifier::new(PathBuf::from(flux_formats::paths::sysconfdir()).join("flux/security/conf.d"))
    }

    /// Forgets the configuration: it is read again.
    pub(super) fn reload(&mut self) {
        self.signer = None;
    }

    /// Returns what was not checked.
    pub(super) fn abandon(&mut self) -> Vec<(Message, Checked)> {
        std::mem::take(&mut self.waiting)
    }
}

/// Owners and modes matter to a broker that is root, as they do in flux-security.
fn path_checks() -> PathChecks {
    let euid = nix::unistd::geteuid();
    if euid.is_root() {
        PathChecks::On {
            euid: euid.as_raw(),
            egid: nix::unistd::getegid().as_raw(),
        }
    } else {
        PathChecks::Off
    }
}

fn verify(known: Option<Arc<Signer>>, directory: &std::path::Path, tokens: &[String]) -> Verdicts {
    let signer = match known {
        Some(signer) => Ok(signer),
        None => flux_sign::load(directory, path_checks())
            .map(|config| Arc::new(Signer::new(config)))
            .map_err(|err| format!("signatures cannot be checked on the leader's node: {err}")),
    };
    let real = nix::unistd::getuid().as_raw();
    let judge = |token: &String| match &signer {
        Ok(signer) => signer.unwrap(token, real).err().map(|err| err.to_string()),
        Err(text) => Some(text.clone()),
    };
    Verdicts {
        errors: tokens.iter().map(judge).collect(),
        signer,
    }
}

impl JobIngest {
    /// Has a signature checked before anything else happens to the submission.
    pub(super) fn verify_first(&mut self, cx: &mut Cx<'_>, req: Message, checked: Checked) {
        self.verifier.waiting.push((req, checked));
        if !self.verifier.busy {
            self.verifier.busy = true;
            // those of the same turn make one batch
            cx.later(|me: &mut JobIngest, cx| me.verify_batch(cx));
        }
    }

    fn verify_batch(&mut self, cx: &mut Cx<'_>) {
        let batch = std::mem::take(&mut self.verifier.waiting);
        if batch.is_empty() {
            self.verifier.busy = false;
            return;
        }
        let tokens: Vec<String> = batch.iter().map(|(_, checked)| checked.j.to_string()).collect();
        let (known, directory) = (self.verifier.signer.clone(), self.verifier.directory.clone());
        let task = tokio::task::spawn_blocking(move || verify(known, &directory, &tokens));
        cx.spawn(task, move |me: &mut JobIngest, cx, verdicts| {
            me.verified(cx, batch, verdicts);
        });
    }

    fn verified(
        &mut self,
        cx: &mut Cx<'_>,
        batch: Vec<(Message, Checked)>,
        verdicts: Result<Verdicts, tokio::task::JoinError>,
    ) {
        match verdicts {
            Ok(verdicts) => {
                if let Ok(signer) = verdicts.signer {
                    self.verifier.signer = Some(signer);
                }
                for ((req, checked), error) in batch.into_iter().zip(verdicts.errors) {
                    match error {
                        None => self.pass_on(cx, req, checked),
                        Some(text) => cx.fail(&req, errno::EINVAL, &text),
                    }
                }
            }
            Err(err) => {
                let err = RpcError::new(errno::EIO, format!("checking signatures: {err}"));
                batch.iter().for_each(|(req, _)| cx.fail_with(req, &err));
            }
        }
        self.verify_batch(cx);
    }
}
