/* Named steps of the write path, at which a test makes this process die or stop: rfs/steps.py, which has the list of names.
 * Only in a build with LOCKSTEP_STEPS (csrc/build_engine.py); in any other a step is nothing at all. */
#ifndef LOCKSTEP_STEPS_H
#define LOCKSTEP_STEPS_H

#ifdef LOCKSTEP_STEPS
void step_reached(const char *name);
#define STEP(name) step_reached(name)
#else
#define STEP(name) ((void)0)
#endif

#endif
