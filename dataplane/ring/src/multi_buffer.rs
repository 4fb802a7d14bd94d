//! Frames that the kernel delivers in several descriptors.
//!
//! ```text
//!  descriptors   a   b+  b+  b   c   d+ | d   e          + = XDP_PKT_CONTD: the frame goes on in the next one
//!  batch         a           c          | e              what is left of them, in order
//!  dropped           b, whole           | d, whole       across the end of a batch, too
//! ```
//! No frame should come so: the program is not made for such frames and the sockets do not ask for them. If a driver
//! does it all the same, no part of the frame must be taken for a frame. Source: Linux
//! `Documentation/networking/af_xdp.rst`, XDP_PKT_CONTD.

use crate::rings::BATCH;

/// Frames of several descriptors that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultiBufferDrops {
    /// Frames, each counted when its last descriptor arrives.
    pub frames: usize,
    /// Bytes of the descriptors.
    pub bytes: usize,
}

/// How far one receive ring is in a frame of several descriptors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MultiBuffer {
    /// The last descriptor said that its frame goes on.
    inside: bool,
}

impl MultiBuffer {
    /// Whether nothing of a batch belongs to such a frame. `continued` has a bit for each descriptor that is continued.
    #[inline]
    pub(crate) const fn is_idle(self, continued: u64) -> bool {
        !self.inside && continued == 0
    }

    /// Moves the descriptors that are whole frames to the front of the batch, in order, and gives the others to `free`.
    /// Returns how many are left, and what was dropped.
    #[cold]
    pub(crate) fn drop_parts<T: Copy>(
        &mut self,
        batch: &mut [T],
        continued: u64,
        length: impl Fn(&T) -> usize,
        mut free: impl FnMut(T),
    ) -> (usize, MultiBufferDrops) {
        assert!(batch.len() <= BATCH, "a bit for each descriptor");
        let (mut whole, mut drops) = (0, MultiBufferDrops::default());
        for index in 0..batch.len() {
            let goes_on = continued >> index & 1 != 0;
            if self.inside || goes_on {
                drops.bytes += length(&batch[index]);
                drops.frames += usize::from(!goes_on);
                free(batch[index]);
            } else {
                batch[whole] = batch[index];
                whole += 1;
            }
            self.inside = goes_on;
        }
        (whole, drops)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A descriptor: its number, its length, and whether its frame goes on.
    type Descriptor = (usize, usize, bool);

    /// Receives the descriptors in batches of these sizes. Returns what is delivered, what is freed, and the drops.
    fn received(descriptors: &[Descriptor], sizes: &[usize]) -> (Vec<usize>, Vec<usize>, MultiBufferDrops) {
        let (mut state, mut rest) = (MultiBuffer::default(), descriptors);
        let (mut delivered, mut freed, mut drops) = (Vec::new(), Vec::new(), MultiBufferDrops::default());
        let mut sizes = sizes.iter().copied().cycle();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(sizes.next().unwrap_or(BATCH).min(rest.len()));
            rest = behind;
            let mut batch = batch.to_vec();
            let continued = batch.iter().enumerate().map(|(index, (.., goes_on))| u64::from(*goes_on) << index).sum();
            if !state.is_idle(continued) {
                let free = |descriptor: Descriptor| freed.push(descriptor.0);
                let (whole, dropped) = state.drop_parts(&mut batch, continued, |descriptor| descriptor.1, free);
                batch.truncate(whole);
                drops.frames += dropped.frames;
                drops.bytes += dropped.bytes;
            }
            delivered.extend(batch.iter().map(|descriptor| descriptor.0));
        }
        (delivered, freed, drops)
    }

    #[test]
    fn a_frame_in_parts_is_dropped_as_a_whole() {
        let descriptors: Vec<Descriptor> = [false, true, true, false, false, true, false, false]
            .into_iter()
            .enumerate()
            .map(|(number, goes_on)| (number, 10, goes_on))
            .collect();
        for sizes in [&[BATCH][..], &[1], &[2], &[3], &[6, 1], &[5, 2, 1]] {
            let (delivered, freed, drops) = received(&descriptors, sizes);
            assert_eq!(delivered, [0, 4, 7], "{sizes:?}");
            assert_eq!(freed, [1, 2, 3, 5, 6], "{sizes:?}");
            assert_eq!(drops, MultiBufferDrops { frames: 2, bytes: 50 }, "{sizes:?}");
        }
    }

    #[test]
    fn a_batch_can_be_the_middle_of_one_frame() {
        let descriptors: Vec<Descriptor> = (0..3 * BATCH).map(|number| (number, 1, number + 1 < 3 * BATCH)).collect();
        let (delivered, freed, drops) = received(&descriptors, &[BATCH]);
        assert_eq!((delivered.len(), freed.len()), (0, 3 * BATCH));
        assert_eq!(drops, MultiBufferDrops { frames: 1, bytes: 3 * BATCH });
    }

    proptest! {
        /// However frames are cut into descriptors, and descriptors into batches, frames of one descriptor are delivered in
        /// order, all others are dropped and counted, and every descriptor is delivered or freed exactly once.
        #[test]
        fn frames_are_delivered_whole_or_not_at_all(
            frames in prop::collection::vec(prop::collection::vec(0..4096_usize, 1..5), 0..200),
            sizes in prop::collection::vec(1..=BATCH, 1..20),
        ) {
            let mut descriptors: Vec<Descriptor> = Vec::new();
            let (mut whole, mut parts, mut expected) = (Vec::new(), Vec::new(), MultiBufferDrops::default());
            for frame in &frames {
                let first = descriptors.len();
                let lengths = frame.iter().enumerate();
                descriptors.extend(lengths.map(|(index, length)| (first + index, *length, index + 1 < frame.len())));
                if frame.len() == 1 {
                    whole.push(first);
                } else {
                    parts.extend(first..descriptors.len());
                    expected.frames += 1;
                    expected.bytes += frame.iter().sum::<usize>();
                }
            }
            prop_assert_eq!(received(&descriptors, &sizes), (whole, parts, expected));
        }
    }
}
