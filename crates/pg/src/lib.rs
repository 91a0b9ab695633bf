//! What PostgreSQL is: positions, timelines, files, parameters, quorum arithmetic. PURE.
