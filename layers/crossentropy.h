// loss[r] = -log softmax(logits[r])[target[r]] over the V real columns; columns V..Vp-1 are padding and get probability 0.
//   dlogits[r] = (softmax(logits[r]) - onehot(target[r])) * scale
// logits: (rows, Vp)     targets: (rows) int, -1: this row does not count (loss 0, gradient 0)     losses: (rows) floatM, nats
#pragma once
#include "runtime/device/types.h"

void crossentropy_forward(floatM* losses, const floatX* logits, const int* targets, size_t rows, int V, int Vp);
// The same losses, and logits overwritten by dlogits (padding by 0): one read, one write, no second (rows, Vp) buffer.
void crossentropy_forward_backward(floatM* losses, floatX* logits, const int* targets, size_t rows, int V, int Vp, floatM scale);
