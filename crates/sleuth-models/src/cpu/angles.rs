use std::sync::{Arc, Mutex, PoisonError};

use crate::ops::RopeTable;

/// Angles of the positions from 0 on, as far as any pass needed them.
#[derive(Debug)]
pub(super) struct Angles {
    frequencies: Vec<f32>,
    table: Mutex<Arc<RopeTable>>,
}

// === impl Angles ===

impl Angles {
    pub(super) fn new(frequencies: Vec<f32>) -> Self {
        let table = RopeTable::with_frequencies(0..1, &frequencies);
        Self { table: Mutex::new(Arc::new(table)), frequencies }
    }

    /// Angles of the positions `0..=last` at least.
    pub(super) fn up_to(&self, last: u32) -> Arc<RopeTable> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.rows() <= last as usize {
            let positions = 0..(last + 1).next_power_of_two();
            *table = Arc::new(RopeTable::with_frequencies(positions, &self.frequencies));
        }
        Arc::clone(&table)
    }
}
