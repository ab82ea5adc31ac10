//! The actor behind `kvs-watch.*`: hands every request to the engine in the `kvs` module.

use crate::modules::kvs::Kvs;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::Message;

/// The `kvs-watch` module.
#[derive(Debug, Default)]
pub struct KvsWatch;

impl Service for KvsWatch {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::user("lookup"),
            Method::user("cancel"),
            Method::user("stats-get"),
        ];
        vec![Interface {
            service: "kvs-watch",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        if cx.provides("kvs") {
            return Ok(());
        }
        Err(RpcError::new(
            errno::ENOSYS,
            "kvs-watch needs the kvs module, which is not loaded on this rank",
        ))
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let request = req.clone();
        if !cx.to::<Kvs>("kvs", move |kvs, cx| kvs.watch_request(cx, &request)) {
            cx.fail(&req, errno::ENOSYS, "the kvs module is not loaded");
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        let msg = msg.clone();
        cx.to::<Kvs>("kvs", move |kvs, cx| kvs.watch_disconnect(cx, &msg));
    }
}
