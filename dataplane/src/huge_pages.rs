//! Huge pages for the large tables: address lists and connections. An access at random then seldom waits for a page
//! table. Without huge pages, the tables work as well; `show status` shows which part of them is in huge pages.

use std::io;
use std::ops::Range;

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_engine::state::lists::Lists;

/// The smallest size of a page.
const PAGE: usize = 4096;

/// Asks the kernel for huge pages for the lists. Pages that exist already stay as they are.
pub(crate) fn advise_lists(lists: &Lists) {
    for_each("lists", lists.regions(), knockplane_ring::advise_huge_pages);
}

/// The number of entries for which the allocation of a page at its first use takes longer than that of all pages of the index.
const MANY: usize = 500;

/// Makes the kernel allocate the pages that this number of entries will use, if they are many. An entry at a random place of the
/// index waits for a page twice otherwise: at its first read and at its first write.
pub(crate) fn populate_lists(lists: &Lists, entries: usize) {
    if entries < MANY {
        return;
    }
    let all = entries >= lists.capacity() / 16;
    let regions = if all { adjacent(lists.regions()) } else { lists.index_regions() };
    for_each("lists", regions, knockplane_ring::populate);
}

/// Replaces the pages of the lists by huge pages. The allocator has written a few pages of each shard before the advice,
/// and the kernel allocates no huge page where a page exists.
pub(crate) fn collapse_lists(lists: &Lists) {
    for_each("lists", adjacent(lists.regions()), knockplane_ring::collapse);
}

/// Replaces the pages of the connection table, which exist already, by huge pages. No packet may be decided with the
/// table before, because a worker would wait meanwhile.
pub(crate) fn collapse_connections(connections: &ConnectionTable) {
    for_each("connections", connections.regions(), |region| {
        knockplane_ring::advise_huge_pages(region.clone())?;
        knockplane_ring::collapse(region)
    });
}

/// Joins regions whose pages are adjacent, because a huge page may hold parts of several.
fn adjacent(regions: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let pages = |region: Range<usize>| region.start / PAGE * PAGE..region.end.next_multiple_of(PAGE);
    let mut regions: Vec<_> = regions.into_iter().map(pages).collect();
    regions.sort_by_key(|region| region.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for region in regions {
        match joined.last_mut() {
            Some(last) if region.start <= last.end => last.end = last.end.max(region.end),
            _ => joined.push(region),
        }
    }
    joined
}

/// Passes each region of a table to the kernel. A refusal is no error.
fn for_each(table: &str, regions: Vec<Range<usize>>, advise: impl FnMut(Range<usize>) -> io::Result<()>) {
    let refusals: Vec<io::Error> = regions.into_iter().map(advise).filter_map(Result::err).collect();
    if let Some(error) = refusals.first() {
        tracing::debug!(table, %error, regions = refusals.len(), "the kernel refuses huge pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_on_adjacent_pages_are_one() {
        let page = |number: usize| number * PAGE;
        let regions = vec![page(8) + 16..page(9), page(2) + 16..page(4) - 100, page(4) + 16..page(5) + 1];
        assert_eq!(adjacent(regions), [page(2)..page(6), page(8)..page(9)]);
        assert!(adjacent(Vec::new()).is_empty());
    }
}
