//! Objects to World, the user's spec to the planner's Spec, actions to objects. PURE.
