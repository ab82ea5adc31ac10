//! What is the local time?
#![expect(unsafe_code, reason = "localtime_r")]

/// A time broken down in the local time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, such as 2026.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 60.
    pub second: u32,
    /// Day of the week, 0 (Sunday) to 6.
    pub weekday: u32,
    /// Day of the year, 0 to 365.
    pub yearday: u32,
    /// Seconds east of UTC.
    pub offset_secs: i64,
}

/// Returns the local time of a number of seconds since 1970.
pub fn local_time(secs: i64) -> LocalTime {
    let time: libc::time_t = secs;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r writes one tm and keeps neither.
    let result = unsafe { libc::localtime_r(&raw const time, tm.as_mut_ptr()) };
    if result.is_null() {
        return local_time(0);
    }
    // SAFETY: zeroed bytes are a valid tm, and localtime_r has written one over them.
    let tm = unsafe { tm.assume_init() };
    let number = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    LocalTime {
        year: i64::from(tm.tm_year) + 1900,
        month: number(tm.tm_mon) + 1,
        day: number(tm.tm_mday),
        hour: number(tm.tm_hour),
        minute: number(tm.tm_min),
        second: number(tm.tm_sec),
        weekday: number(tm.tm_wday),
        yearday: number(tm.tm_yday),
        offset_secs: tm.tm_gmtoff,
    }
}
