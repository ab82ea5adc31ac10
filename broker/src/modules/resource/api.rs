//! How does a scheduler of this broker learn what there is to give? Typed form of RFC 28, without encoding.

use super::Resource;
use crate::service::{Cx, Service};
use flux_formats::idset::IdSet;
use flux_formats::resource_set::ResourceSet;
use std::cell::RefCell;
use std::rc::Rc;

/// Service name of the resource module.
pub const SERVICE: &str = "resource";

/// What a scheduler is told (RFC 28).
#[derive(Clone, Debug, PartialEq)]
pub enum AcquireUpdate {
    /// The first update: the resources without the excluded ones, and the ranks that may be used now.
    Initial {
        /// Resources; groups of equal ranks.
        r: ResourceSet,
        /// Ranks that are online and not drained.
        up: IdSet,
    },
    /// These ranks may be used again.
    Up(IdSet),
    /// These ranks may not be used for new jobs.
    Down(IdSet),
    /// These ranks are gone for good; they are not in a `Down` of their own.
    Shrink(IdSet),
    /// The resources end at another time: seconds since the epoch, 0 never.
    Expiration(f64),
}

/// Brings an update to the scheduler's service.
pub(super) type Deliver = Box<dyn FnMut(&mut Cx<'_>, AcquireUpdate)>;

/// Acquires the resources for the calling scheduler: `each` gets [`AcquireUpdate::Initial`] once they are
/// known, then changes. A later call, whoever makes it, replaces the earlier one.
pub fn acquire<S: Service>(
    cx: &mut Cx<'_>,
    each: impl FnMut(&mut S, &mut Cx<'_>, AcquireUpdate) + 'static,
) -> bool {
    let slot = cx.slot();
    let each = Rc::new(RefCell::new(each));
    let deliver: Deliver = Box::new(move |cx, update| {
        let each = each.clone();
        cx.to_slot::<S>(slot, move |me, cx| {
            // never entered twice: the hub runs one call at a time
            if let Ok(mut each) = each.try_borrow_mut() {
                each(me, cx, update);
            }
        });
    });
    cx.to::<Resource>(SERVICE, move |resource, cx| {
        resource.on_acquire_local(cx, deliver)
    })
}

/// Ends the acquisition, when the scheduler is unloaded.
pub fn release(cx: &mut Cx<'_>) {
    cx.to::<Resource>(SERVICE, |resource, _| resource.on_release_local());
}

/// Drains ranks in the instance owner's name, as the execution service does after repeated failures.
pub fn drain(cx: &mut Cx<'_>, ranks: &IdSet, reason: &str) {
    let (ranks, reason) = (ranks.clone(), reason.to_owned());
    cx.to::<Resource>(SERVICE, move |resource, cx| {
        resource.on_drain_local(cx, &ranks, &reason)
    });
}
