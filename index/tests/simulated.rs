//! A storage in memory that knows what would survive a power cut, and can be told to fail.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tintype_index::storage::{Bytes, Lock, NewFile, Storage};

use crate::support::Random;

/// The grain at which a medium writes.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// What is on the medium for certain.
    synced: Vec<u8>,
    /// Whether a sync failed: the system has forgotten since that there was something to write, and later ones do nothing.
    spoilt: bool,
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Remove(name) => drop(names.remove(name)),
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn names(&self) -> [&String; 2] {
        match self {
            NameChange::Create(name, _) | NameChange::Remove(name) => [name, name],
            NameChange::Rename(from, to) => [from, to],
        }
    }
}

#[derive(Clone, Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of names.
    unsynced: Vec<NameChange>,
    /// Changes of names whose sync failed. They may be on the medium or not, and no later sync brings them there.
    forgotten: Vec<NameChange>,
    steps: usize,
    fails: Option<Fails>,
    reads: usize,
    /// The read that fails.
    fails_read: Option<usize>,
}

/// When operations fail.
#[derive(Clone, Copy)]
pub(crate) enum Fails {
    /// From this step on, all: the power is gone.
    From(usize),
    /// This step alone.
    Once(usize),
}

/// The storage; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Simulated {
    state: Arc<Mutex<State>>,
    locked: Arc<Mutex<bool>>,
}

impl Simulated {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts an operation that changes something, and fails it if it is its turn.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.steps += 1;
        let at = state.steps;
        match state.fails {
            Some(Fails::From(from)) if at >= from => Err(io::Error::other("the power is gone")),
            Some(Fails::Once(once)) if at == once => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(state),
        }
    }

    /// As [`Simulated::step`] for a sync, which leaves something behind where it fails alone.
    fn step_of_sync(&self) -> io::Result<(MutexGuard<'_, State>, Option<io::Error>)> {
        match self.step() {
            Ok(state) => Ok((state, None)),
            Err(error) => {
                let state = self.state();
                if matches!(state.fails, Some(Fails::From(_))) { Err(error) } else { Ok((state, Some(error))) }
            }
        }
    }

    /// Counts an operation that changes nothing, and fails it if it is its turn.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.reads += 1;
        if state.fails_read == Some(state.reads) {
            Err(io::Error::other("the medium does not answer"))
        } else {
            Ok(state)
        }
    }

    pub(crate) fn reads(&self) -> usize {
        self.state().reads
    }

    pub(crate) fn fail_read(&self, read: Option<usize>) {
        self.state().fails_read = read;
    }

    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    pub(crate) fn fail(&self, fails: Option<Fails>) {
        self.state().fails = fails;
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].bytes.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        state.files.push(File { synced: bytes.clone(), bytes, spoilt: false });
        let at = state.files.len() - 1;
        state.names.insert(name.into(), at);
        state.synced_names.insert(name.into(), at);
    }

    /// A storage of its own with the same files.
    pub(crate) fn copy(&self) -> Simulated {
        let copy = Simulated::default();
        *copy.state() = State { steps: 0, fails: None, reads: 0, fails_read: None, ..self.state().clone() };
        copy
    }

    /// What the medium may hold after a power cut now. Unsynced bytes survive sector by sector, unsynced names change by change,
    /// as chance has it; `chance` in tenths.
    pub(crate) fn after_power_cut(&self, random: &mut Random, chance: u64) -> Simulated {
        let state = self.state();
        let mut names = state.synced_names.clone();
        for change in state.forgotten.iter().chain(&state.unsynced) {
            if random.below(10) < chance {
                change.apply(&mut names);
            }
        }
        let files = state.files.iter().map(|file| {
            let mut bytes = file.synced.clone();
            let grown = file.bytes.len() - bytes.len();
            let kept = if random.below(10) < chance { grown } else { random.below(grown as u64 + 1) as usize };
            bytes.resize(bytes.len() + kept, 0);
            for sector in (file.synced.len() / SECTOR)..bytes.len().div_ceil(SECTOR) {
                let from = (sector * SECTOR).max(file.synced.len());
                let to = bytes.len().min((sector + 1) * SECTOR);
                if random.below(10) < chance {
                    bytes[from..to].copy_from_slice(&file.bytes[from..to]);
                }
            }
            File { synced: bytes.clone(), bytes, spoilt: false }
        });
        let files = files.collect();
        let after = Simulated::default();
        *after.state() = State { files, synced_names: names.clone(), names, ..State::default() };
        after
    }
}

struct SimulatedFile {
    storage: Simulated,
    file: usize,
}

impl Write for SimulatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.storage.step()?;
        // Short writes are part of the contract of `Write`.
        let taken = bytes.len().min(1500);
        state.files[self.file].bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for SimulatedFile {
    fn sync(&mut self) -> io::Result<()> {
        let (mut state, failed) = self.storage.step_of_sync()?;
        let file = &mut state.files[self.file];
        file.spoilt |= failed.is_some();
        if !file.spoilt {
            file.synced = file.bytes.clone();
        }
        failed.map_or(Ok(()), Err)
    }
}

struct SimulatedLock(Arc<Mutex<bool>>);

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = false;
    }
}

impl Storage for Simulated {
    fn read(&self, name: &str) -> io::Result<Bytes> {
        let state = self.look()?;
        let file = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[*file].bytes.clone().into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.step()?;
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.names.insert(name.into(), file);
        state.unsynced.push(NameChange::Create(name.into(), file));
        Ok(Box::new(SimulatedFile { storage: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), file);
        state.unsynced.push(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced.push(NameChange::Remove(name.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, failed) = self.step_of_sync()?;
        let State { synced_names, unsynced, forgotten, .. } = &mut *state;
        if let Some(error) = failed {
            forgotten.append(unsynced);
            return Err(error);
        }
        for change in unsynced.drain(..) {
            // Whatever was forgotten of these names is made good.
            forgotten.retain(|old| old.names().iter().all(|name| !change.names().contains(name)));
            change.apply(synced_names);
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        drop(self.look()?);
        Ok(self.names())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        drop(self.look()?);
        let mut locked = self.locked.lock().unwrap();
        if std::mem::replace(&mut *locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimulatedLock(Arc::clone(&self.locked)))))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("simulated").join(name)
    }
}
