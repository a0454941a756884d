//! What learning from a few vectors needs: random numbers, a fair choice of samples, a step downhill.

/// Random numbers: SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }

    /// Between -1 and 1.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// Divides samples into `shots` of each class, drawn at random, and the others, both in their order. None if a class has too few.
pub(crate) fn draw(labels: &[usize], classes: usize, shots: usize, seed: u64) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    Random::new(seed).shuffle(&mut order);
    let mut taken = vec![0; classes];
    let is_shot = |&i: &usize| {
        taken[labels[i]] += 1;
        taken[labels[i]] <= shots
    };
    let (mut shot, mut rest): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_shot);
    shot.sort_unstable();
    rest.sort_unstable();
    taken.iter().all(|&count| count == 0 || count >= shots).then_some((shot, rest))
}

/// Logits to probabilities.
pub(crate) fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Numbers that are learnt by AdamW (Loshchilov and Hutter 2019).
pub(crate) struct Adam {
    pub(crate) values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(values: Vec<f32>) -> Adam {
        let (first, second) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        Adam { values, first, second, steps: 0 }
    }

    /// One step against the slopes; `decay` pulls to 0.
    pub(crate) fn step(&mut self, slopes: &[f32], rate: f32, decay: f32) {
        const FIRST: f32 = 0.9;
        const SECOND: f32 = 0.999;
        self.steps += 1;
        let (first_seen, second_seen) = (1.0 - FIRST.powi(self.steps), 1.0 - SECOND.powi(self.steps));
        for (((value, first), second), &slope) in
            self.values.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(slopes)
        {
            *value -= rate * decay * *value;
            *first = FIRST * *first + (1.0 - FIRST) * slope;
            *second = SECOND * *second + (1.0 - SECOND) * slope * slope;
            *value -= rate * (*first / first_seen) / ((*second / second_seen).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shots_are_drawn_from_every_class() {
        let labels: Vec<usize> = (0..60).map(|i| i % 3).collect();
        let (shots, rest) = draw(&labels, 3, 4, 1).unwrap();
        for class in 0..3 {
            assert_eq!(shots.iter().filter(|&&i| labels[i] == class).count(), 4);
        }
        assert_eq!(shots.len() + rest.len(), 60);
        assert_ne!(draw(&labels, 3, 4, 2).unwrap().0, shots);
        assert_eq!(draw(&labels, 3, 4, 1).unwrap().0, shots);
        assert!(draw(&labels, 3, 21, 1).is_none());
    }
}
