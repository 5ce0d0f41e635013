//! How many requests a time: what a rate says, and what a caller may know of it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

const MOST: u32 = 1_000_000;

/// So many requests within a window, all of them at once if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    pub requests: NonZeroU32,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Window {
    Second,
    Minute,
    Hour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write it as a number per second, minute or hour, such as 100/s, 600/m or 5000/h, at most a million")]
pub struct BadRate;

impl Rate {
    /// The window in seconds.
    pub fn window(self) -> u32 {
        match self.window {
            Window::Second => 1,
            Window::Minute => 60,
            Window::Hour => 3_600,
        }
    }

    /// After how long one request more may come.
    pub fn pace(self) -> Duration {
        Duration::from_secs(self.window().into()) / self.requests.get()
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (number, unit) = text.split_once('/').ok_or(BadRate)?;
        let window = match unit.trim() {
            "s" => Window::Second,
            "m" => Window::Minute,
            "h" => Window::Hour,
            _ => return Err(BadRate),
        };
        let requests: NonZeroU32 = number.trim().parse().map_err(|_| BadRate)?;
        if requests.get() > MOST {
            return Err(BadRate);
        }
        Ok(Self { requests, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.window {
            Window::Second => 's',
            Window::Minute => 'm',
            Window::Hour => 'h',
        };
        write!(f, "{}/{unit}", self.requests)
    }
}

/// Where a caller stands with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub rate: Rate,
    /// Requests that may still come at once.
    pub left: u32,
    /// Seconds until all of them may again.
    pub full_in: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_second_minute_or_hour() {
        for (text, window) in [("100/s", 1), ("600 / m", 60), ("1/h", 3_600)] {
            let rate: Rate = text.parse().expect("a rate");
            assert_eq!(rate.window(), window, "{text}");
            assert_eq!(rate.to_string(), text.replace(' ', ""));
        }
        for text in ["", "100", "0/s", "-1/s", "1/d", "/s", "1000001/s"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate), "{text}");
        }
    }
}
