//! Service `groups`: which ranks belong to `broker.online` and other groups? Memberships are reduced up the tree.

use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::msg::{Message, NODEID_UPSTREAM, role};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The `groups` module.
#[derive(Debug, Default)]
pub struct Groups {
    members: BTreeMap<String, IdSet>,
    changed: BTreeMap<String, Vec<(bool, IdSet)>>,
    watchers: Vec<(String, Message)>,
    flush_planned: bool,
}

#[derive(Deserialize)]
struct NameRequest {
    name: String,
}

#[derive(Deserialize)]
struct UpdateRequest {
    /// Group name -> list of `[joined, idset]`.
    update: BTreeMap<String, Vec<(bool, String)>>,
}

impl Groups {
    /// Applies a change of this subtree and plans to tell the parent or the watchers, once per turn.
    fn apply(&mut self, cx: &mut Cx<'_>, name: &str, joined: bool, ranks: &IdSet) {
        let members = self.members.entry(name.to_owned()).or_default();
        if joined {
            *members = members.union(ranks);
        } else {
            *members = members.difference(ranks);
        }
        self.changed
            .entry(name.to_owned())
            .or_default()
            .push((joined, ranks.clone()));
        if !self.flush_planned {
            self.flush_planned = true;
            cx.later(|me: &mut Groups, cx| me.flush(cx));
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        self.flush_planned = false;
        let changed = std::mem::take(&mut self.changed);
        if cx.rank() != 0 {
            let update: Map<String, Value> = changed
                .into_iter()
                .map(|(name, steps)| {
                    let steps: Vec<_> = steps
                        .iter()
                        .map(|(joined, ids)| json!([joined, ids.to_string()]))
                        .collect();
                    (name, Value::from(steps))
                })
                .collect();
            let req = cx.request("groups.update", NODEID_UPSTREAM, &json!({ "update": update }));
            cx.notify_upstream(req);
            return;
        }
        for (name, request) in self.watchers.clone() {
            if changed.contains_key(&name) {
                let body = self.body(&name);
                cx.respond(&request, &body);
            }
        }
    }

    fn body(&self, name: &str) -> Value {
        let members = self
            .members
            .get(name)
            .map(ToString::to_string)
            .unwrap_or_default();
        json!({ "members": members })
    }

    /// Ranks behind a lost child leave every group.
    pub fn subtree_lost(&mut self, cx: &mut Cx<'_>, ranks: &IdSet) {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let lost = self
                .members
                .get(&name)
                .map(|m| m.intersection(ranks))
                .unwrap_or_default();
            if !lost.is_empty() {
                self.apply(cx, &name, false, &lost);
            }
        }
    }

    /// Adds or removes ranks of this subtree.
    pub fn change(&mut self, cx: &mut Cx<'_>, name: &str, joined: bool, ranks: &IdSet) {
        self.apply(cx, name, joined, ranks);
    }

    fn join_or_leave(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let NameRequest { name } = req.payload_json()?;
        let local = req.routes.len() == 1 && req.sender().is_some_and(|sender| cx.is_local_module(sender));
        if !local && req.rolemask & role::LOCAL == 0 {
            return Err(RpcError::new(
                errno::EPROTO,
                "groups are joined by services of the same broker only",
            ));
        }
        let joined = req.topic.method() == "join";
        let me = IdSet::from_range(cx.rank(), cx.rank());
        let is_member = self.members.get(&name).is_some_and(|m| m.contains(cx.rank()));
        if joined == is_member {
            return Err(RpcError::bare(if joined { errno::EEXIST } else { errno::ENOENT }));
        }
        self.apply(cx, &name, joined, &me);
        Ok(())
    }

    fn get(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(NameRequest { name }) = cx.decode(&req) else {
            return;
        };
        let body = self.body(&name);
        cx.respond(&req, &body);
        if req.is_streaming() {
            self.watchers.push((name, Message { payload: None, ..req }));
        }
    }
}

impl Service for Groups {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::owner("join"),
            Method::owner("leave"),
            Method::user("get"),
            Method::owner("update"),
        ];
        vec![Interface {
            service: "groups",
            methods: METHODS,
        }]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "get" => self.get(cx, req),
            "update" => {
                let Ok(UpdateRequest { update }) = req.payload_json() else {
                    return;
                };
                let steps = update
                    .iter()
                    .flat_map(|(name, steps)| steps.iter().map(move |step| (name, step)));
                for (name, (joined, ranks)) in steps {
                    // a child of our own build sends idsets; anything else is no membership
                    if let Ok(ranks) = ranks.parse::<IdSet>() {
                        self.apply(cx, name, *joined, &ranks);
                    }
                }
            }
            _ => match self.join_or_leave(cx, &req) {
                Ok(()) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.watchers
            .retain(|(_, request)| request.sender() != msg.sender());
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        let subtree: Map<String, Value> = self
            .members
            .iter()
            .map(|(name, ids)| (name.clone(), Value::from(ids.to_string())))
            .collect();
        Some(json!({ "subtree": subtree }))
    }
}
