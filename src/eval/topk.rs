//! The largest scores of a row, in the order of `torch.topk` and `torch.sort` on the processor.
//!
//! Recalls and accuracies are compared with published ones to a hundredth of a percent, and rows with equal scores are common:
//! thirty pictures of Flickr8k share a caption. Which of two equal scores is among the first k then decides. torch leaves that to
//! `std::partial_sort`, or to `std::nth_element` where k is more than a 64th of the row, so the two are written down here as the
//! GNU library has them (introselect, Musser 1997; heaps with Floyd's bottom-up sift). "The lower index first" would be simpler,
//! and another set in one of four rows of many ties.

use std::cmp::Ordering;

/// A score and its column.
type Entry = (f32, u32);

/// Rows are partially sorted where they are this many times as long as what is asked for.
const PARTIAL: usize = 64;

/// Finds the largest scores; keeps its memory between rows.
#[derive(Debug, Default)]
pub(super) struct TopK {
    queue: Vec<Entry>,
}

impl TopK {
    /// Columns of the `k` largest scores. The first is the largest; all of them are in order where `k` is at most 17 or at most a
    /// 64th of the row.
    pub(super) fn of(&mut self, scores: &[f32], k: usize) -> impl Iterator<Item = usize> {
        let k = k.min(scores.len());
        let queue = &mut self.queue;
        queue.clear();
        queue.extend(scores.iter().zip(0..).map(|(&score, column)| (score, column)));
        if k * PARTIAL <= queue.len() {
            select_by_heap(queue, k);
            sort_heap(&mut queue[..k]);
        } else if k > 0 {
            select(queue, k - 1);
            insertion_sort(&mut queue[..k - 1]);
        }
        queue[..k].iter().map(|&(_, column)| column as usize)
    }
}

/// All columns, the largest score first, in the order of `torch.sort` where it is not asked to be stable: introsort (Musser 1997).
pub(super) fn sorted(scores: &[f32]) -> Vec<usize> {
    let mut queue: Vec<Entry> = scores.iter().zip(0..).map(|(&score, column)| (score, column)).collect();
    let depth = 2 * queue.len().max(1).ilog2();
    sort_coarsely(&mut queue, depth);
    insertion_sort(&mut queue);
    queue.into_iter().map(|(_, column)| column as usize).collect()
}

/// Leaves parts of at most sixteen entries to be sorted, each in its place.
fn sort_coarsely(mut entries: &mut [Entry], mut depth: u32) {
    while entries.len() > 16 {
        if depth == 0 {
            select_by_heap(entries, entries.len());
            return sort_heap(entries);
        }
        depth -= 1;
        let cut = divide(entries);
        let (front, back) = entries.split_at_mut(cut);
        sort_coarsely(back, depth);
        entries = front;
    }
}

/// Whether `a` comes before `b`; a score that is no number before all others.
fn before(a: Entry, b: Entry) -> bool {
    (a.0.is_nan() && !b.0.is_nan()) || a.0.partial_cmp(&b.0) == Some(Ordering::Greater)
}

/// Moves `value` down from a hole to the bottom along the later children, and up again to its place; the root is the last in order.
fn sift(heap: &mut [Entry], top: usize, length: usize, value: Entry) {
    let (mut hole, mut child) = (top, top);
    while child + 1 < length.div_ceil(2) {
        child = 2 * (child + 1);
        if before(heap[child], heap[child - 1]) {
            child -= 1;
        }
        heap[hole] = heap[child];
        hole = child;
    }
    if length.is_multiple_of(2) && child == (length - 2) / 2 {
        heap[hole] = heap[2 * child + 1];
        hole = 2 * child + 1;
    }
    while hole > top && before(heap[(hole - 1) / 2], value) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = value;
}

/// Sorts a heap.
fn sort_heap(heap: &mut [Entry]) {
    for end in (1..heap.len()).rev() {
        let value = heap[end];
        heap[end] = heap[0];
        sift(heap, 0, end, value);
    }
}

/// Brings the first `k` in order to the front, as a heap.
fn select_by_heap(entries: &mut [Entry], k: usize) {
    for parent in (0..k / 2).rev() {
        let value = entries[parent];
        sift(entries, parent, k, value);
    }
    for i in k..entries.len() {
        if k > 0 && before(entries[i], entries[0]) {
            let value = entries[i];
            entries[i] = entries[0];
            sift(entries, 0, k, value);
        }
    }
}

/// Brings to place `nth` what belongs there, and what comes before it to the front.
fn select(entries: &mut [Entry], nth: usize) {
    let (mut first, mut last) = (0, entries.len());
    let mut depth = 2 * entries.len().max(1).ilog2();
    while last - first > 3 {
        if depth == 0 {
            select_by_heap(&mut entries[first..last], nth + 1 - first);
            entries.swap(first, nth);
            return;
        }
        depth -= 1;
        let cut = first + divide(&mut entries[first..last]);
        if cut <= nth { first = cut } else { last = cut }
    }
    insertion_sort(&mut entries[first..last]);
}

/// Divides entries around the median of three, and returns where the second part begins.
fn divide(entries: &mut [Entry]) -> usize {
    let last = entries.len();
    let median = median(entries, 1, last / 2, last - 1);
    entries.swap(0, median);
    partition(entries)
}

fn median(entries: &[Entry], a: usize, b: usize, c: usize) -> usize {
    let before = |i: usize, j: usize| before(entries[i], entries[j]);
    match (before(a, b), before(b, c), before(a, c)) {
        (true, true, _) | (false, false, false) => b,
        (true, false, true) | (false, true, false) => c,
        (true, false, false) | (false, _, true) => a,
    }
}

/// Hoare's partition around the first entry; both scans stop at it or at the other's leavings.
fn partition(entries: &mut [Entry]) -> usize {
    let (mut low, mut high, pivot) = (1, entries.len(), entries[0]);
    loop {
        while before(entries[low], pivot) {
            low += 1;
        }
        high -= 1;
        while before(pivot, entries[high]) {
            high -= 1;
        }
        if low >= high {
            return low;
        }
        entries.swap(low, high);
        low += 1;
    }
}

/// Stable.
fn insertion_sort(entries: &mut [Entry]) {
    for i in 1..entries.len() {
        let (value, mut at) = (entries[i], i);
        while at > 0 && before(value, entries[at - 1]) {
            entries[at] = entries[at - 1];
            at -= 1;
        }
        entries[at] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ties_it_is_a_sort() {
        let scores: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1009) as f32).collect();
        let mut sorted: Vec<usize> = (0..scores.len()).collect();
        sorted.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut top = TopK::default();
        for k in [0, 1, 2, 5, 10, 15, 17] {
            assert_eq!(top.of(&scores, k).collect::<Vec<_>>(), sorted[..k], "{k}");
            assert_eq!(top.of(&scores[..40], k).count(), k);
        }
        let mut all: Vec<usize> = top.of(&scores, 5000).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert_eq!(super::sorted(&scores), sorted);
        // What quicksort would take long for ends as well.
        let organ: Vec<f32> = (0..3000).map(|i| (if i % 2 == 0 { i } else { 3000 - i }) as f32).collect();
        assert!(super::sorted(&organ).is_sorted_by(|&a, &b| organ[a] >= organ[b]));
    }
}
