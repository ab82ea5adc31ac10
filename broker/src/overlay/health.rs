//! What does `flux overlay status` see, and how is the tree described?

use super::service::Overlay;
use crate::service::{Cx, Trace};
use flux_formats::errno;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct RankRequest {
    rank: u32,
}

#[derive(Deserialize)]
struct TraceRequest {
    typemask: u32,
    topic_glob: String,
    #[serde(default)]
    full: bool,
}

impl Overlay {
    fn health_body(&self, cx: &Cx<'_>) -> Value {
        let children: Vec<Value> = self
            .children
            .iter()
            .map(|(rank, child)| {
                let mut one = json!({
                    "rank": rank, "status": child.status.name(), "duration": child.since.elapsed().as_secs_f64(),
                });
                if let Some(error) = &child.error {
                    one["error"] = Value::from(error.as_str());
                }
                one
            })
            .collect();
        json!({
            "rank": cx.rank(), "status": self.status.name(),
            "duration": self.since.elapsed().as_secs_f64(), "children": children,
        })
    }

    pub(super) fn health(&mut self, cx: &mut Cx<'_>, req: Message) {
        let body = self.health_body(cx);
        cx.respond(&req, &body);
        if req.is_streaming() {
            self.health_watchers.push(Message { payload: None, ..req });
        }
    }

    pub(super) fn tell_health(&mut self, cx: &mut Cx<'_>) {
        if self.health_watchers.is_empty() {
            return;
        }
        let body = self.health_body(cx);
        for request in self.health_watchers.clone() {
            cx.respond(&request, &body);
        }
    }

    pub(super) fn topology(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(RankRequest { rank }) = cx.decode(req) else {
            return;
        };
        if rank >= cx.size() {
            let text = format!("rank {rank} is not below size {}", cx.size());
            cx.fail(req, errno::ENOENT, &text);
            return;
        }
        let body = subtree(cx, rank).0;
        cx.respond(req, &body);
    }

    pub(super) fn trace(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let Some(TraceRequest {
            typemask,
            topic_glob,
            full,
        }) = cx.decode(&req)
        else {
            return;
        };
        let request = Message { payload: None, ..req };
        cx.add_link_trace(Trace {
            request,
            typemask,
            glob: topic_glob,
            names: Vec::new(),
            full,
        });
    }
}

/// Describes the subtree at a rank; also returns how many ranks it has.
fn subtree(cx: &Cx<'_>, rank: u32) -> (Value, u32) {
    let mut size = 1;
    let mut children = Vec::new();
    for child in cx.topology.children_of(rank) {
        let (body, count) = subtree(cx, child);
        children.push(body);
        size += count;
    }
    (json!({"rank": rank, "size": size, "children": children}), size)
}
