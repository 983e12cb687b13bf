"""What is computed: operators, schedules, models, code generation, judging results."""
