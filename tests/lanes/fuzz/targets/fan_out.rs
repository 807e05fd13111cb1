#![cfg_attr(fuzzing, no_main)]

ringfence_lane_fuzz::target!(fan_out);
