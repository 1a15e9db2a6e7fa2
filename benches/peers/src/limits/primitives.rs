//! The primitives, by name: each is a metric of the table `limits`.

macro_rules! primitives {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// What the machine can do, and three facts of the run that the model has to know.
        /// Times are of one, in nanoseconds.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Primitives {
            $($(#[$what])* pub $name: f64,)*
        }

        impl Primitives {
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// From a source of numbers by name; none unless it has all of them.
            pub fn of(get: impl Fn(&str) -> Option<f64>) -> Option<Primitives> {
                Some(Primitives { $($name: get(stringify!($name))?,)* })
            }
        }
    };
}

primitives! {
    /// Processors that this process may use.
    cores,
    /// Of keys and values, living.
    data_bytes,
    /// What an engine may cache.
    cache_bytes,

    /// A null system call.
    syscall_ns,
    /// A look at the clock.
    clock_ns,
    /// Bytes copied, from memory to memory, by one thread.
    memcpy_bytes_per_s,
    crc32_16_ns,
    crc32_116_ns,
    crc32_4096_ns,
    xxh3_16_ns,
    xxh3_116_ns,
    xxh3_4096_ns,
    /// A block of 4 KiB of pairs as the workloads have them, and what comes of it as a part of that.
    lz4_compress_ns,
    lz4_decompress_ns,
    lz4_part,
    /// A load whose address the one before it told, somewhere in so much memory, in pages of 4 KiB.
    load_256k_ns,
    load_4m_ns,
    load_64m_ns,
    load_1g_ns,
    /// Loads that need not wait for one another.
    independent_256k_ns,
    independent_4m_ns,
    independent_64m_ns,
    independent_1g_ns,

    /// Appends of 150 B with `write`: to a file that has its space, and to one whose pages are in the page
    /// cache as well.
    write_ns,
    write_populated_ns,
    /// The same through a map.
    map_write_ns,
    map_write_populated_ns,
    /// 4 KiB somewhere in a file that the page cache holds, copied out.
    pread_ns,
    /// A byte of a page of a map, somewhere: the first time (in order), and later.
    touch_first_ns,
    touch_ns,
    /// An append of 150 B and `fdatasync`, the mean: of a file that grows, of one that has its space, of
    /// one that was written before.
    sync_growing_ns,
    sync_preallocated_ns,
    sync_rewritten_ns,
    /// Written in order, 32 MiB between two syncs.
    disk_bytes_per_s,
}
