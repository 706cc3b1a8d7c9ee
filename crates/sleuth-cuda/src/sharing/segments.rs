//! Sharing of a pool's segments.

use std::sync::Arc;

use super::{Copied, Copier, Sharing};
use crate::health::Health;
use crate::pool::Pool;
use crate::segment::Segment;
use crate::transfer::{Transfer, TransferError};

impl Copier for Transfer {
    type Copy = Segment;

    fn copy(&self, source: &Segment, to: u32) -> Result<Copied<Segment>, TransferError> {
        let (copy, route) = self.copy_segment(source, to)?;
        let bytes = copy.bytes();
        Ok(Copied { copy, route, bytes })
    }
}

impl Sharing<Transfer> {
    /// Shares a pool's segments. What a device held is forgotten as soon as it is lost.
    pub fn of(pool: &Pool) -> Arc<Self> {
        let sharing = Arc::new(Self::new(pool.transfer(), pool.peers()));
        let told = Arc::downgrade(&sharing);
        pool.on_health(Box::new(move |ordinal, health| {
            if let (Health::Draining(_), Some(sharing)) = (health, told.upgrade()) {
                sharing.forget_device(ordinal);
            }
        }));
        // One that was lost before anybody listened.
        for (ordinal, health) in pool.health() {
            if health != Health::Serving {
                sharing.forget_device(ordinal);
            }
        }
        sharing
    }
}
