//! Who may connect, with which roles? (RFC 12; flux-core: modules/connector-local/local.c, behaviour)

use super::access::{Access, System};
use super::client::{ClientIo, serve};
use crate::service::{ClientId, ClientInfo, Cx, Interface, Mailbox, RpcError, Service};
use crate::sys::peer::peer_groups;
use flux_formats::errno;
use flux_formats::msg::{Message, role};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Largest message of a guest in bytes.
const GUEST_FRAME_MAX: usize = 16 << 20;
/// Largest message of an owner: the content limit (1 GiB) and room for the rest of the message.
const OWNER_FRAME_MAX: usize = (1 << 30) + 64 * 1024;
/// Pause of the accept loop when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The `connector-local` module.
#[derive(Debug)]
pub struct ConnectorLocal {
    path: PathBuf,
    access: Access,
}

impl ConnectorLocal {
    /// Returns a connector that will listen at `path` (the path of attribute `local-uri`).
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ConnectorLocal {
            path: path.into(),
            access: Access::default(),
        }
    }

    fn take(&mut self, cx: &mut Cx<'_>, access: Access) {
        for name in &access.unknown {
            cx.log_as_me(4, &format!("{name} is not known on this machine: ignored"));
        }
        self.access = access;
    }

    fn on_accept(&mut self, cx: &mut Cx<'_>, stream: UnixStream) {
        let Ok(cred) = stream.peer_cred() else { return };
        let groups = || {
            let mut groups = peer_groups(&stream).unwrap_or_default();
            groups.push(cred.gid());
            groups
        };
        let rolemask = self.access.roles(cx.owner, cred.uid(), groups);
        let io = Rc::new(ClientIo::new(stream));
        if rolemask == role::NONE {
            cx.log_as_me(3, &format!("uid={} no assigned roles", cred.uid()));
            // a client that has gone already does not mind
            drop(io.welcome(u8::try_from(errno::EPERM).unwrap_or(1)));
            return;
        }
        if io.welcome(0).is_err() {
            return;
        }
        let info = ClientInfo {
            userid: cred.uid(),
            rolemask,
            pid: cred.pid().unwrap_or(-1),
        };
        let id: ClientId = crate::service::new_uuid();
        cx.client_up(id.clone(), info, io.clone());
        let limit = if rolemask & role::OWNER != 0 {
            OWNER_FRAME_MAX
        } else {
            GUEST_FRAME_MAX
        };
        let mailbox = cx.mailbox::<ConnectorLocal>();
        cx.spawn_task(serve(io, id, limit, mailbox));
    }

    pub(super) fn on_client_down(&mut self, cx: &mut Cx<'_>, id: &ClientId, reason: Option<String>) {
        if let Some(reason) = reason {
            cx.log_as_me(4, &format!("dropped a client: {reason}"));
        }
        cx.client_down(id);
    }
}

/// Binds the socket, replacing a stale one, and opens it to everyone (SO_PEERCRED decides).
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Hands every new connection to the service, until the broker ends.
async fn accept_loop(listener: UnixListener, mailbox: Mailbox<ConnectorLocal>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                tracing::warn!(err = %err, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if mailbox
            .post(move |me, cx| me.on_accept(cx, stream))
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Service for ConnectorLocal {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "connector-local",
            methods: &[],
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let access = Access::read(&cx.config, &System)?;
        self.take(cx, access);
        let listener = bind(&self.path).map_err(|err| {
            let errnum = err
                .raw_os_error()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(errno::EIO);
            RpcError::new(errnum, format!("cannot listen at {}: {err}", self.path.display()))
        })?;
        let mailbox = cx.mailbox::<ConnectorLocal>();
        cx.spawn_task(accept_loop(listener, mailbox));
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        cx.fail(&req, errno::ENOSYS, "");
    }

    fn stats(&mut self, cx: &mut Cx<'_>) -> Option<Value> {
        Some(json!({
            "server": cx.clients_stats(),
            "allow_guest_user": self.access.allow_guest_user,
            "allow_root_owner": self.access.allow_root_owner,
        }))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Access::read(config, &System).map(drop)
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        if let Ok(access) = Access::read(&cx.config, &System) {
            self.take(cx, access);
        }
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) -> bool {
        // the path may be gone with the rundir
        drop(std::fs::remove_file(&self.path));
        true
    }
}
