//! A broker for tests: speaks the local connector's protocol, keeps eventlogs, runs barriers, routes between shells.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use flux_formats::msg::{FrameDecoder, Kind, Message, flags, frame, json_payload, role};
use serde_json::{Value, json};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    clients: HashMap<String, (u32, UnixStream)>,
    next_client: u32,
    /// (rank, service) to client.
    services: HashMap<(u32, String), String>,
    subscriptions: Vec<(String, String)>,
    logs: HashMap<String, String>,
    barrier: Vec<(String, Message)>,
    barrier_count: u32,
    commits: u32,
    requests: Vec<String>,
    raised: Vec<Value>,
    exits: HashMap<u32, i32>,
    replies: HashMap<u32, Vec<Message>>,
    refuse_commits: bool,
    /// With a state directory: what every commit changed, and how many commits a crash leaves.
    history: Vec<Value>,
    written: Option<usize>,
    marks: HashMap<String, String>,
    hellos: Vec<Value>,
    /// The job is over: shells that say hello are told so.
    forgotten: bool,
    /// Nobody gets in.
    closed: bool,
}

/// The broker of all ranks of a job.
pub(crate) struct FakeBroker {
    dir: tempfile::TempDir,
    shells: u32,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl FakeBroker {
    /// Starts a broker whose barriers wait for `shells` shells, with a socket for each rank in `ranks`.
    pub(crate) fn start(ranks: u32, shells: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        for rank in 0..ranks {
            let listener = UnixListener::bind(dir.path().join(format!("local-{rank}"))).unwrap();
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                let open = || !state.0.lock().unwrap().closed;
                for stream in listener.incoming().flatten().filter(|_| open()) {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(stream, rank, shells, &state));
                }
            });
        }
        FakeBroker { dir, shells, state }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(crate) fn uri(&self, rank: u32) -> String {
        format!("local://{}/local-{rank}", self.dir.path().display())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    fn wait_until<T>(&self, what: &str, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(found) = check(&mut state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut logs: Vec<String> = state.logs.values().cloned().collect();
                logs.iter_mut().for_each(|log| log.truncate(2000));
                drop(state);
                panic!("no {what} in time; logs: {logs:#?}");
            }
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for the exit statuses that all shells report, in order of rank.
    pub(crate) fn wait_exits(&self) -> Vec<i32> {
        let count = usize::try_from(self.shells).unwrap();
        let exits = self.wait_until("shell exit", |state| {
            (state.exits.len() == count).then(|| state.exits.clone())
        });
        let mut exits: Vec<_> = exits.into_iter().collect();
        exits.sort_unstable();
        exits.into_iter().map(|(_, status)| status).collect()
    }

    /// Waits until a log contains a text.
    pub(crate) fn wait_log(&self, key: &str, text: &str) {
        self.wait_until(text, |state| state.logs.get(key)?.contains(text).then_some(()));
    }

    /// Waits until a request with this topic has come.
    pub(crate) fn wait_request(&self, topic: &str) {
        self.wait_until(topic, |state| {
            state.requests.iter().any(|have| have == topic).then_some(())
        });
    }

    /// Returns the events of a log as (name, context).
    pub(crate) fn events(&self, key: &str) -> Vec<(String, Value)> {
        let text = self.lock().logs.get(key).cloned().unwrap_or_default();
        text.lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                assert!(event["timestamp"].as_f64().unwrap() > 1e9);
                (
                    event["name"].as_str().unwrap().to_owned(),
                    event["context"].clone(),
                )
            })
            .collect()
    }

    pub(crate) fn event_names(&self, key: &str) -> Vec<String> {
        self.events(key).into_iter().map(|(name, _)| name).collect()
    }

    /// Returns what a task wrote to a stream.
    pub(crate) fn data(&self, stream: &str, rank: &str) -> String {
        let mut text = String::new();
        for (name, context) in self.events("output") {
            if name == "data" && context["stream"] == stream && context["rank"] == rank {
                text.push_str(context["data"].as_str().unwrap_or(""));
            }
        }
        text
    }

    /// Returns the messages that shells have logged, as "LEVEL message".
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let events = self
            .events("output")
            .into_iter()
            .filter(|(name, _)| name == "log");
        events
            .map(|(_, context)| {
                let component = context["component"]
                    .as_str()
                    .map(|text| format!("{text}: "))
                    .unwrap_or_default();
                format!(
                    "{} {component}{}",
                    context["level"],
                    context["message"].as_str().unwrap()
                )
            })
            .collect()
    }

    pub(crate) fn commits(&self) -> u32 {
        self.lock().commits
    }

    pub(crate) fn barriers(&self) -> u32 {
        self.lock().barrier_count
    }

    pub(crate) fn raised(&self) -> Vec<Value> {
        self.lock().raised.clone()
    }

    /// Returns the topics of all requests in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    pub(crate) fn refuse_commits(&self) {
        self.lock().refuse_commits = true;
    }

    /// Closes all connections.
    pub(crate) fn hang_up(&self) {
        for (_, (_, stream)) in self.lock().clients.drain() {
            let _sent = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Becomes a broker with a state directory, which has written nothing down yet.
    pub(crate) fn journals(&self) {
        self.lock().written = Some(0);
    }

    /// Writes down all but the last `lag` commits.
    pub(crate) fn write_down(&self, lag: usize) {
        let mut state = self.lock();
        let count = state.history.len().saturating_sub(lag);
        state.written = Some(count);
    }

    /// Dies and comes back with what was written down.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        for (_, (_, stream)) in state.clients.drain() {
            let _sent = stream.shutdown(std::net::Shutdown::Both);
        }
        state.services.clear();
        state.subscriptions.clear();
        state.barrier.clear();
        let left = state.written.unwrap_or(0);
        let mut history = std::mem::take(&mut state.history);
        history.truncate(left);
        state.logs.clear();
        state.marks.clear();
        state.commits = 0;
        for body in history {
            commit(&body, &mut state);
        }
    }

    /// Lets nobody in, or everybody again.
    pub(crate) fn refuse_connections(&self, refuse: bool) {
        self.lock().closed = refuse;
    }

    /// Waits until a file is there.
    pub(crate) fn wait_file(&self, path: &std::path::Path) {
        let deadline = Instant::now() + PATIENCE;
        while !path.exists() {
            assert!(
                Instant::now() < deadline,
                "{} is not there in time",
                path.display()
            );
            let state = self.lock();
            drop(
                self.state
                    .1
                    .wait_timeout(state, Duration::from_millis(20))
                    .unwrap(),
            );
        }
    }

    /// Forgets the job.
    pub(crate) fn forget(&self) {
        self.lock().forgotten = true;
    }

    /// Returns what shells said when they came back.
    pub(crate) fn hellos(&self) -> Vec<Value> {
        self.lock().hellos.clone()
    }

    /// Publishes an event of the instance owner's.
    pub(crate) fn publish(&self, topic: &str, body: &Value) {
        self.publish_as(role::OWNER, topic, body);
    }

    /// Publishes an event of somebody with these roles.
    pub(crate) fn publish_as(&self, rolemask: u32, topic: &str, body: &Value) {
        let state = self.lock();
        let mut event = Message::event(topic.to_owned(), Some(json_payload(body).unwrap()));
        event.rolemask = rolemask;
        for (client, prefix) in &state.subscriptions {
            if topic.starts_with(prefix) {
                send(&state, client, &event);
            }
        }
    }

    /// Sends a request to a shell's service as user `userid` and returns a function's worth of replies.
    pub(crate) fn request(
        &self,
        rank: u32,
        topic: &str,
        body: &Value,
        tag: u32,
        streaming: bool,
        userid: u32,
    ) {
        let service = topic.split('.').next().unwrap().to_owned();
        let client = self.wait_until("service", |state| {
            state.services.get(&(rank, service.clone())).cloned()
        });
        let mut request = Message::request(topic.to_owned(), rank, Some(json_payload(body).unwrap()));
        request.aux2 = tag;
        request.userid = userid;
        request.rolemask = role::USER;
        if streaming {
            request.flags |= flags::STREAMING;
        }
        request.routes.push(Bytes::from_static(b"test"));
        send(&self.lock(), &client, &request);
    }

    /// Waits for a reply that `wanted` accepts.
    pub(crate) fn wait_reply(&self, tag: u32, wanted: impl Fn(&Message) -> bool) -> Message {
        self.wait_until("reply", |state| {
            state
                .replies
                .get(&tag)?
                .iter()
                .find(|reply| wanted(reply))
                .cloned()
        })
    }

    pub(crate) fn replies(&self, tag: u32) -> Vec<Message> {
        self.lock().replies.get(&tag).cloned().unwrap_or_default()
    }
}

fn send(state: &State, client: &str, msg: &Message) {
    if let Some((_, stream)) = state.clients.get(client) {
        let mut stream = stream;
        let _sent = stream.write_all(&frame(msg));
    }
}

fn serve(mut stream: UnixStream, rank: u32, shells: u32, shared: &(Mutex<State>, Condvar)) {
    stream.write_all(&[0]).unwrap();
    let client = {
        let mut state = shared.0.lock().unwrap();
        state.next_client += 1;
        let client = format!("client-{}", state.next_client);
        state
            .clients
            .insert(client.clone(), (rank, stream.try_clone().unwrap()));
        client
    };
    let mut decoder = FrameDecoder::new(1 << 30);
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        decoder.buffer.extend_from_slice(&buffer[..count]);
        while let Some(msg) = decoder.next_message().unwrap() {
            let Ok(mut state) = shared.0.lock() else { return };
            if !state.clients.contains_key(&client) {
                // a broker that has died does not go on reading
                return;
            }
            handle(&client, rank, shells, msg, &mut state);
            drop(state);
            shared.1.notify_all();
        }
    }
    shared.0.lock().unwrap().clients.remove(&client);
}

fn handle(client: &str, rank: u32, shells: u32, mut msg: Message, state: &mut State) {
    if msg.kind == Kind::Response {
        let Some(back) = msg.routes.pop() else { return };
        if &back[..] == b"test" {
            state.replies.entry(msg.matchtag()).or_default().push(msg);
        } else {
            let back = String::from_utf8(back.to_vec()).unwrap();
            send(state, &back, &msg);
        }
        return;
    }
    state.requests.push(msg.topic.as_str().to_owned());
    let body: Value = msg.payload_json_or_empty().unwrap();
    let topic = msg.topic.as_str().to_owned();
    let reply = match topic.as_str() {
        "service.add" => {
            let service = body["service"].as_str().unwrap().to_owned();
            state.services.insert((rank, service), client.to_owned());
            msg.response(None)
        }
        "event.subscribe" => {
            state
                .subscriptions
                .push((client.to_owned(), body["topic"].as_str().unwrap().to_owned()));
            msg.response(None)
        }
        "kvs.commit" if state.refuse_commits => msg.error_response(95, "namespace is gone"),
        "kvs.commit" => {
            commit(&body, state);
            let mut answer = json!({"rootref": "sha1-0", "rootseq": state.commits});
            if let Some(written) = state.written {
                answer["position"] = json!(state.history.len());
                answer["written"] = json!(written);
            }
            msg.response(Some(json_payload(&answer).unwrap()))
        }
        "kvs.lookup" => match state.marks.get(body["key"].as_str().unwrap()) {
            Some(mark) => {
                let data = base64::engine::general_purpose::STANDARD.encode(mark);
                let val = json!({"val": {"data": data, "type": "val", "ver": 1}});
                msg.response(Some(json_payload(&val).unwrap()))
            }
            None => msg.error_response(2, ""),
        },
        "state-machine.wait" => msg.response(None),
        "job-exec.shell-hello" if state.forgotten => msg.error_response(2, "unknown job"),
        "job-exec.shell-hello" => {
            state.hellos.push(body);
            msg.response(None)
        }
        "attr.get" => match body["name"].as_str().unwrap() {
            "instance-level" => msg.response(Some(json_payload(&json!({"value": "2", "flags": 1})).unwrap())),
            "rank" => msg.response(Some(
                json_payload(&json!({"value": rank.to_string(), "flags": 1})).unwrap(),
            )),
            _ => msg.error_response(2, ""),
        },
        "job-manager.raise" => {
            state.raised.push(body);
            msg.response(None)
        }
        "job-exec.shell-exit" => {
            let rank = u32::try_from(body["rank"].as_u64().unwrap()).unwrap();
            state
                .exits
                .insert(rank, i32::try_from(body["status"].as_i64().unwrap()).unwrap());
            msg.response(None)
        }
        "job-exec.shell-barrier" => return barrier(client, msg, shells, state),
        _ => return route(client, msg, state),
    };
    send(state, client, &reply);
}

fn commit(body: &Value, state: &mut State) {
    assert!(body["namespace"].as_str().unwrap().starts_with("job-"), "{body}");
    state.commits += 1;
    state.history.push(body.clone());
    for op in body["ops"].as_array().unwrap() {
        let key = op["key"].as_str().unwrap().to_owned();
        let data = op["dirent"]["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        if key.starts_with("shell-commits-") {
            assert_eq!(op["flags"], 0);
            state.marks.insert(key, text.to_owned());
        } else {
            assert_eq!(op["flags"], 32);
            state.logs.entry(key).or_default().push_str(text);
        }
    }
}

fn barrier(client: &str, msg: Message, shells: u32, state: &mut State) {
    assert!(msg.has_flag(flags::NORESPONSE) && msg.matchtag() == 0);
    state.barrier.push((client.to_owned(), msg));
    if state.barrier.len() < usize::try_from(shells).unwrap() {
        return;
    }
    state.barrier_count += 1;
    for (client, mut request) in std::mem::take(&mut state.barrier) {
        request.flags &= !flags::NORESPONSE;
        send(state, &client, &request.response(None));
    }
}

fn route(client: &str, mut msg: Message, state: &mut State) {
    let service = msg.topic.service().to_owned();
    match state.services.get(&(msg.nodeid(), service)).cloned() {
        Some(target) => {
            msg.routes.push(Bytes::from(client.to_owned()));
            msg.userid = current_uid();
            msg.rolemask = role::OWNER;
            send(state, &target, &msg);
        }
        None if msg.wants_response() => send(state, client, &msg.error_response(38, "no such service")),
        None => {}
    }
}

pub(crate) fn current_uid() -> u32 {
    flux_process::uid()
}
