//! The readable story of one run.

/// Lines of what happened; empty unless it is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) told: bool,
    pub(crate) lines: Vec<String>,
}

/// Adds a line with the world's true time, if the story is told.
#[macro_export]
#[doc(hidden)]
macro_rules! story {
    ($world:expr, $($text:tt)*) => {
        if $world.story.told {
            let now = $world.now;
            let line = format!("{:>5}.{:06}  {}", now / 1_000_000, now % 1_000_000, format_args!($($text)*));
            $world.story.lines.push(line);
        }
    };
}
