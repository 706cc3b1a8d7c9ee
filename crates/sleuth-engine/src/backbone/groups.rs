use std::collections::HashMap;
use std::sync::Arc;

use sleuth_core::Prepared;

/// Items of a batch that share an image and a prompt, by their place in it.
pub(super) struct Group<'a> {
    pub(super) image_key: [u8; 32],
    pub(super) prompt: &'a Arc<[u32]>,
    /// Never empty.
    pub(super) items: Vec<usize>,
}

/// The groups of a batch, in the order of their first items.
pub(super) fn groups(batch: &[Prepared]) -> Vec<Group<'_>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (item, prepared) in batch.iter().enumerate() {
        let key = (prepared.image_key, &prepared.prompt);
        let place = *places.entry(key).or_insert_with(|| {
            let Prepared { image_key, prompt, .. } = prepared;
            groups.push(Group { image_key: *image_key, prompt, items: Vec::new() });
            groups.len() - 1
        });
        groups[place].items.push(item);
    }
    groups
}
