//! Frames that the kernel delivers in several descriptors.
//!
//! ```text
//!  descriptors   a   b+  b+  b   c   d+ | d   e          + = XDP_PKT_CONTD: the frame goes on in the next one
//!  batch         a           c          | e              the rest, in order
//!  dropped           b, whole           | d, whole       across the end of a batch, too
//! ```
//! No frame should arrive in this form: the program does not declare support for it, and the sockets do not request it.
//! If a driver delivers such a frame, no part of it may be mistaken for a frame. Source: Linux
//! `Documentation/networking/af_xdp.rst`, XDP_PKT_CONTD.

use super::{BATCH, Dropped};
use crate::queue::Descriptor;

/// The state of a frame of several descriptors in one receive ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MultiBuffer {
    /// Whether the frame of the last descriptor continues in the next one.
    inside: bool,
}

impl MultiBuffer {
    /// Whether no descriptor of a batch belongs to such a frame. `continued` has a bit for each descriptor that is
    /// continued.
    #[inline]
    pub(super) const fn is_idle(self, continued: u64) -> bool {
        !self.inside && continued == 0
    }

    /// Moves the descriptors that are whole frames to the front of the batch, in order, and gives the others to `free`.
    /// Returns the number of whole frames, and the dropped ones.
    #[cold]
    pub(super) fn drop_parts(
        &mut self,
        batch: &mut [Descriptor],
        continued: u64,
        mut free: impl FnMut(Descriptor),
    ) -> (usize, Dropped) {
        assert!(batch.len() <= BATCH, "a bit for each descriptor");
        let (mut whole, mut drops) = (0, Dropped::default());
        for index in 0..batch.len() {
            let goes_on = continued >> index & 1 != 0;
            if self.inside || goes_on {
                drops.bytes += batch[index].length as usize;
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

    /// A descriptor whose address is its number.
    fn descriptor(number: usize, length: usize, is_continued: bool) -> Descriptor {
        let options = if is_continued { libc::XDP_PKT_CONTD } else { 0 };
        Descriptor { address: number as u64, length: length as u32, options }
    }

    /// Receives the descriptors in batches of these sizes. Returns the delivered frames, the freed frames, and the
    /// drops.
    fn received(descriptors: &[Descriptor], sizes: &[usize]) -> (Vec<usize>, Vec<usize>, Dropped) {
        let (mut state, mut rest) = (MultiBuffer::default(), descriptors);
        let (mut delivered, mut freed, mut drops) = (Vec::new(), Vec::new(), Dropped::default());
        let mut sizes = sizes.iter().copied().cycle();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(sizes.next().unwrap_or(BATCH).min(rest.len()));
            rest = behind;
            let mut batch = batch.to_vec();
            let bits = batch.iter().enumerate().map(|(index, one)| u64::from(one.is_continued()) << index);
            let continued = bits.sum();
            if !state.is_idle(continued) {
                let free = |descriptor: Descriptor| freed.push(descriptor.address as usize);
                let (whole, dropped) = state.drop_parts(&mut batch, continued, free);
                batch.truncate(whole);
                drops.frames += dropped.frames;
                drops.bytes += dropped.bytes;
            }
            delivered.extend(batch.iter().map(|descriptor| descriptor.address as usize));
        }
        (delivered, freed, drops)
    }

    #[test]
    fn a_frame_in_parts_is_dropped_as_a_whole() {
        let descriptors: Vec<Descriptor> = [false, true, true, false, false, true, false, false]
            .into_iter()
            .enumerate()
            .map(|(number, is_continued)| descriptor(number, 10, is_continued))
            .collect();
        for sizes in [&[BATCH][..], &[1], &[2], &[3], &[6, 1], &[5, 2, 1]] {
            let (delivered, freed, drops) = received(&descriptors, sizes);
            assert_eq!(delivered, [0, 4, 7], "{sizes:?}");
            assert_eq!(freed, [1, 2, 3, 5, 6], "{sizes:?}");
            assert_eq!(drops, Dropped { frames: 2, bytes: 50 }, "{sizes:?}");
        }
    }

    #[test]
    fn a_batch_can_be_the_middle_of_one_frame() {
        let descriptors: Vec<Descriptor> =
            (0..3 * BATCH).map(|number| descriptor(number, 1, number + 1 < 3 * BATCH)).collect();
        let (delivered, freed, drops) = received(&descriptors, &[BATCH]);
        assert_eq!((delivered.len(), freed.len()), (0, 3 * BATCH));
        assert_eq!(drops, Dropped { frames: 1, bytes: 3 * BATCH });
    }

    proptest! {
        /// For any split of frames into descriptors, and of descriptors into batches: frames of one descriptor are
        /// delivered in order, all others are dropped and counted, and every descriptor is delivered or freed exactly
        /// once.
        #[test]
        fn frames_are_delivered_whole_or_not_at_all(
            frames in prop::collection::vec(prop::collection::vec(0..4096_usize, 1..5), 0..200),
            sizes in prop::collection::vec(1..=BATCH, 1..20),
        ) {
            let mut descriptors: Vec<Descriptor> = Vec::new();
            let (mut whole, mut parts, mut expected) = (Vec::new(), Vec::new(), Dropped::default());
            for frame in &frames {
                let first = descriptors.len();
                let lengths = frame.iter().enumerate();
                descriptors.extend(
                    lengths.map(|(index, length)| descriptor(first + index, *length, index + 1 < frame.len())),
                );
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
