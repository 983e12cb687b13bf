"""Program in, Plan out: grouping, schedules, packing, memory; no TVM."""
