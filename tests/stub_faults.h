// SPDX-License-Identifier: Apache-2.0
// Faults to order, for the tests' own libraries that stand for a vendor's.
//
// SONIC_STUB_FAULTS="STEP[@N[+]]=WHAT,...": at its N-th time in a process (+: and each after it;
// without @N: each) the step does WHAT: a number (the error that it gives), hang, exit, abort,
// segv, or zero (1). SONIC_STUB_ONCE=FILE: one fault in all processes together, FILE says it was.
#ifndef SONIC_TESTS_STUB_FAULTS_H
#define SONIC_TESTS_STUB_FAULTS_H

// 0, or the number; or does not return. From any thread.
int stub_fault(const char *step);

#endif
