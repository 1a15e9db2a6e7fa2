//! A hint that bytes will be read soon, for who has several reads to wait for and need not wait for one after
//! another. Changes nothing but the time it takes.

/// Starts to load the cache line that `bytes[at]` lies in; nothing if it is outside.
#[inline]
pub(crate) fn line(bytes: &[u8], at: usize) {
    if let Some(byte) = bytes.get(at) {
        touch(byte);
    }
}

/// Starts to load the cache line that `it` begins in.
#[inline]
pub(crate) fn touch<T>(it: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: all x86-64 processors have the instruction; it does not fault, nor change what can be seen,
    // whatever the address, and this one is that of a reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(it).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = it;
}
