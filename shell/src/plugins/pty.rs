//! How do tasks run in pseudo-terminals, and clients attach to them? (shell options `pty.*`; service `pty.RANK`)

use flux_client::Message;
use flux_formats::errno::{EINVAL, ENODATA, EPROTO, Errnum};
use flux_formats::idset::IdSet;
use flux_process::pty::{Pty, WinSize};
use flux_process::{Signal, WaitStatus, fd};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::lines::Pieces;
use crate::options::OptionError;
use crate::task::{Reader, Stdin, Stream, Task};

/// Size of a terminal before a client tells its own.
const SIZE_DEFAULT: WinSize = WinSize { rows: 25, cols: 80 };
/// Output kept for the first client of an interactive terminal, in bytes.
const BACKLOG_MAX: usize = 1 << 20;

/// Which tasks get a terminal and what happens with their output.
#[derive(Debug)]
pub(crate) struct Ptys {
    /// `None` means all tasks.
    ranks: Option<IdSet>,
    capture: bool,
    interactive: bool,
    terminals: Vec<Terminal>,
}

#[derive(Debug)]
struct Terminal {
    rank: u32,
    pty: Pty,
    input: Stdin,
    clients: Vec<Message>,
    attached_once: bool,
    backlog: Vec<u8>,
    pieces: Pieces,
    ended: Option<WaitStatus>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    winsize: Option<Size>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
struct Size {
    rows: u16,
    cols: u16,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

impl Ptys {
    /// Reads the options; `None` when no terminal is asked for.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &Ctx) -> Result<Option<Self>, OptionError> {
        let options = &ctx.info.options;
        let Some(pty) = options.get("pty") else {
            return Ok(None);
        };
        if !pty.is_object() && !options.flag("pty")? {
            return Ok(None);
        }
        let interactive = options.flag("pty.interactive")?;
        let ranks = match options.text("pty.ranks")?.as_deref() {
            None if interactive => Some(IdSet::from(0)),
            None | Some("all") => None,
            Some(text) => Some(text.parse().map_err(|_| OptionError {
                name: "pty.ranks".to_owned(),
                value: format!("\"{text}\""),
            })?),
        };
        let capture = match options.get("pty.capture") {
            Some(_) => options.flag("pty.capture")?,
            None => !interactive,
        };
        Ok(Some(Ptys {
            ranks,
            capture,
            interactive,
            terminals: Vec::new(),
        }))
    }

    /// Returns what `shell.init` tells clients: the service of the interactive terminal, and whether its output is
    /// in the eventlog too.
    pub(crate) fn announcement(&self) -> (Option<&'static str>, Option<u32>) {
        (
            self.interactive.then_some("pty.0"),
            (self.interactive && self.capture).then_some(1),
        )
    }

    /// Returns true when a task gets a terminal.
    pub(crate) fn covers(&self, rank: u32) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.contains(rank))
    }

    /// Opens a task's terminal and makes the task read it; returns the device for the task.
    ///
    /// # Errors
    /// Those of [`Pty::open`].
    pub(crate) fn open(&mut self, task: &mut Task) -> std::io::Result<std::ffi::CString> {
        let pty = Pty::open()?;
        pty.set_winsize(SIZE_DEFAULT)?;
        let copy = || std::os::fd::AsFd::as_fd(&pty).try_clone_to_owned();
        let (reader, client_input, service_input) = (copy()?, copy()?, copy()?);
        fd::set_nonblocking(&pty, true)?;
        if let Some(slot) = task.readers.get_mut(Stream::Stdout.index()) {
            *slot = Some(Reader {
                fd: reader,
                pieces: Pieces::new(false),
            });
        }
        task.stdin = Stdin::new(service_input);
        let path = pty.slave_path().to_owned();
        self.terminals.push(Terminal {
            rank: task.rank,
            pty,
            input: Stdin::new(client_input),
            clients: Vec::new(),
            attached_once: false,
            backlog: Vec::new(),
            pieces: Pieces::new(false),
            ended: None,
        });
        Ok(path)
    }

    fn terminal(&mut self, rank: u32) -> Option<&mut Terminal> {
        self.terminals.iter_mut().find(|terminal| terminal.rank == rank)
    }

    /// Takes a terminal's output for its clients; returns true when it belongs into the eventlog as well.
    pub(crate) fn on_output(&mut self, ctx: &mut Ctx, rank: u32, data: &[u8]) -> bool {
        let (interactive, capture) = (self.interactive, self.capture);
        if let Some(terminal) = self.terminal(rank) {
            if interactive && !terminal.attached_once && terminal.backlog.len() < BACKLOG_MAX {
                terminal.backlog.extend_from_slice(data);
            }
            terminal.send(ctx, data);
        }
        capture
    }

    /// Takes the end of a task in a terminal, after all its output.
    pub(crate) fn on_exit(&mut self, ctx: &mut Ctx, rank: u32, status: WaitStatus) {
        if let Some(terminal) = self.terminal(rank) {
            terminal.ended = Some(status);
            for client in std::mem::take(&mut terminal.clients) {
                say_goodbye(ctx, &client, status);
            }
        }
    }

    /// Returns true when nobody waits to see the end of an interactive task.
    pub(crate) fn is_complete(&self, killed: bool) -> bool {
        !self.interactive || killed || self.terminals.iter().all(|terminal| terminal.attached_once)
    }

    /// Takes a request to `pty.RANK`.
    ///
    /// # Errors
    /// EPROTO, EINVAL for a task without terminal.
    pub(crate) fn on_request(
        &mut self,
        ctx: &mut Ctx,
        rank: u32,
        request: Message,
    ) -> Result<(), (Errnum, &'static str)> {
        let body: Request = request.payload_json().map_err(|_| (EPROTO, ""))?;
        let terminal = self.terminal(rank).ok_or((EINVAL, "task has no terminal"))?;
        match body.kind.as_str() {
            "attach" => {
                if !request.is_streaming() {
                    return Err((EPROTO, "attach must be a streaming request"));
                }
                terminal.resize(body.winsize);
                let _sent = ctx
                    .handle
                    .respond(&request, Some(&serde_json::json!({"type": "attach"})));
                terminal.attached_once = true;
                terminal.clients.push(request);
                let backlog = std::mem::take(&mut terminal.backlog);
                terminal.send(ctx, &backlog);
                if let Some(status) = terminal.ended {
                    for client in std::mem::take(&mut terminal.clients) {
                        say_goodbye(ctx, &client, status);
                    }
                }
            }
            "resize" => terminal.resize(body.winsize),
            "data" => {
                let text = body.data.unwrap_or_default();
                let bytes = match body.encoding.as_deref() {
                    Some("base64") => crate::base64::decode(&text).ok_or((EPROTO, "invalid base64"))?,
                    _ => text.into_bytes(),
                };
                terminal.input.push(&bytes, false);
            }
            "detach" => terminal.drop_client(ctx, &request),
            _ => return Err((EPROTO, "unknown terminal request")),
        }
        Ok(())
    }

    /// Forgets a client that has gone away.
    pub(crate) fn on_disconnect(&mut self, request: &Message) {
        for terminal in &mut self.terminals {
            terminal
                .clients
                .retain(|client| client.sender() != request.sender());
        }
    }

    /// Forgets all clients.
    pub(crate) fn drop_clients(&mut self) {
        for terminal in &mut self.terminals {
            terminal.clients.clear();
        }
    }

    /// Returns the terminals that have input waiting to be written.
    pub(crate) fn waiting_input(&self) -> impl Iterator<Item = (usize, &std::os::fd::OwnedFd)> {
        self.terminals.iter().enumerate().filter_map(|(index, terminal)| {
            terminal
                .input
                .fd
                .as_ref()
                .filter(|_| terminal.input.wants_write())
                .map(|fd| (index, fd))
        })
    }

    /// Writes waiting input.
    pub(crate) fn flush_input(&mut self, index: usize) {
        if let Some(terminal) = self.terminals.get_mut(index) {
            terminal.input.flush();
        }
    }
}

impl Terminal {
    fn resize(&self, size: Option<Size>) {
        if let Some(size) = size {
            // A terminal whose task has ended has no size to set.
            let _set = self.pty.set_winsize(WinSize {
                rows: size.rows,
                cols: size.cols,
            });
        }
    }

    fn send(&mut self, ctx: &mut Ctx, data: &[u8]) {
        if self.clients.is_empty() {
            return;
        }
        let clients = &self.clients;
        self.pieces.push(data, |piece| {
            let encoded;
            let body = match std::str::from_utf8(piece) {
                Ok(data) => Data {
                    kind: "data",
                    data,
                    encoding: None,
                },
                Err(_) => {
                    encoded = crate::base64::encode(piece);
                    Data {
                        kind: "data",
                        data: &encoded,
                        encoding: Some("base64"),
                    }
                }
            };
            for client in clients {
                let _sent = ctx.handle.respond(client, Some(&body));
            }
        });
    }

    fn drop_client(&mut self, ctx: &mut Ctx, request: &Message) {
        let (leaving, staying): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clients)
            .into_iter()
            .partition(|client| client.sender() == request.sender());
        self.clients = staying;
        for client in leaving {
            let _sent = ctx.handle.respond_error(&client, ENODATA, "");
        }
    }
}

fn say_goodbye(ctx: &mut Ctx, client: &Message, status: WaitStatus) {
    let message = match status.signal().and_then(Signal::new) {
        Some(signal) => signal
            .name()
            .map_or_else(|| "Killed".to_owned(), |name| format!("Killed by {name}")),
        None => "session exiting".to_owned(),
    };
    let body: Value = serde_json::json!({"type": "exit", "message": message, "status": status.0});
    let _sent = ctx.handle.respond(client, Some(&body));
    let _sent = ctx.handle.respond_error(client, ENODATA, "");
}
