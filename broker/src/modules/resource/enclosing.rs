//! Which resources has an instance that runs as a job? Those that the enclosing instance gave the job, kept up to date.

use super::service::Resource;
use crate::parent::{self, Link, ParentError};
use crate::service::{Cx, Mailbox};
use flux_formats::jobid::JobId;
use flux_formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::{Value, json};

/// One response of the watch of R.
#[derive(Deserialize)]
struct Update {
    #[serde(rename = "R")]
    r: Value,
}

/// What the watch of R in the enclosing instance says.
#[derive(Debug)]
enum News {
    /// R at the beginning.
    First(ResourceSet),
    /// R after a change.
    Changed(ResourceSet),
    /// There is no R to be had.
    None(String),
}

impl Resource {
    /// Begins to watch the job's R in the enclosing instance; false when there is none.
    pub(super) fn ask_enclosing(&mut self, cx: &mut Cx<'_>) -> bool {
        let Some((uri, id)) = parent::location(&cx.attrs) else {
            return false;
        };
        let mailbox = cx.mailbox::<Resource>();
        cx.spawn_task(async move {
            if let Err(err) = watch(&uri, id, &mailbox).await {
                post(&mailbox, News::None(err.to_string())).await;
            }
        });
        true
    }

    fn on_news(&mut self, cx: &mut Cx<'_>, news: News) {
        match news {
            News::First(r) if r.ranks().count() == u64::from(self.state.size) => {
                // with several brokers on a host the hosts do not tell which is which: then by order
                let renumbered = r.rerank(&self.state.hosts).unwrap_or_else(|_| r.compact_ranks());
                self.define(cx, renumbered.remap(), "job-info");
            }
            News::First(r) => {
                let (ranks, size) = (r.ranks().count(), self.state.size);
                cx.log_as_me(
                    7,
                    &format!("cannot map {ranks} ranks of R to {size} brokers, falling back to discovery"),
                );
                self.without_enclosing(cx);
            }
            News::Changed(r) => {
                let changed = self
                    .state
                    .r
                    .as_ref()
                    .is_some_and(|own| own.expiration.to_bits() != r.expiration.to_bits());
                if changed && let Err(err) = self.set_expiration(cx, r.expiration) {
                    cx.log_as_me(3, &format!("expiration of R in the enclosing instance: {err}"));
                }
            }
            News::None(why) => {
                if self.state.r.is_none() {
                    cx.log_as_me(4, &format!("R of the enclosing instance: {why}"));
                    self.without_enclosing(cx);
                }
            }
        }
    }
}

async fn post(mailbox: &Mailbox<Resource>, news: News) {
    // the module is gone only when the broker ends
    let _gone = mailbox.post(move |me, cx| me.on_news(cx, news)).await;
}

async fn watch(uri: &str, id: JobId, mailbox: &Mailbox<Resource>) -> Result<(), ParentError> {
    let mut link = Link::open(uri).await?;
    let request = json!({ "id": id.0, "key": "R", "flags": 0 });
    link.send("job-info.update-watch", &request, true).await?;
    let mut first = true;
    loop {
        let update: Update = link.response().await?;
        let news = match ResourceSet::from_value(&update.r) {
            Ok(r) if first => News::First(r),
            Ok(r) => News::Changed(r),
            Err(err) => News::None(err.to_string()),
        };
        first = false;
        post(mailbox, news).await;
    }
}
