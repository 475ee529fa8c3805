//! Memory that is nowhere else.

use std::io;

use memmap2::MmapMut;

/// Words of memory, zero at first. What is not written takes no room.
#[derive(Debug)]
pub struct Words {
    map: Option<MmapMut>,
    len: usize,
}

impl Words {
    /// So many words.
    ///
    /// # Errors
    /// If the system does not give them.
    pub fn new(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { map: None, len });
        }
        let bytes = len.checked_mul(size_of::<u32>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes)?;
        // Without huge pages it is slower, and that is all.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map), len })
    }

    /// The words.
    pub fn as_slice(&self) -> &[u32] {
        // A map begins with a page of the system, so its words are aligned.
        self.map.as_deref().map_or(&[], |bytes| &bytemuck::cast_slice(bytes)[..self.len])
    }

    /// The words, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        self.map.as_deref_mut().map_or(&mut [], |bytes| &mut bytemuck::cast_slice_mut(bytes)[..self.len])
    }

    /// The words as floats.
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.as_slice())
    }

    /// The words as floats, to be written.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.as_mut_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_and_can_be_written() {
        let mut words = Words::new(1000).unwrap();
        assert!(words.as_slice().iter().all(|&word| word == 0));
        words.as_mut_slice()[999] = 7;
        assert_eq!((words.as_slice().len(), words.as_slice()[999]), (1000, 7));
        assert!(Words::new(0).unwrap().as_slice().is_empty());
        assert!(Words::new(usize::MAX).is_err());
    }
}
