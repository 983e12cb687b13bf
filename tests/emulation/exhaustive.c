/* exhaustive STRIDE: the largest error of each function in units in the last place, over
 * every STRIDE-th float32, against the C library's double precision. Results below the
 * normal range are not counted; a NaN or an infinity in the wrong place ends the program. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "functions.h"

#define CHUNK 65536

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static const struct {
    const char *name;
    int32_t (*kernel)(const float *, float *, void *);
    double (*reference)(double);
} functions[] = {
    {"exp", functions_exp, exp},
    {"log", functions_log, log},
    {"tanh", functions_tanh, tanh},
    {"erf", functions_erf, erf},
    {"sigmoid", functions_sigmoid, sigmoid},
    {"softplus", functions_softplus, softplus},
    {"sin", functions_sin, sin},
    {"cos", functions_cos, cos},
    {"tan", functions_tan, tan},
    {"asin", functions_asin, asin},
    {"acos", functions_acos, acos},
    {"atan", functions_atan, atan},
    {"sinh", functions_sinh, sinh},
    {"cosh", functions_cosh, cosh},
    {"asinh", functions_asinh, asinh},
    {"acosh", functions_acosh, acosh},
    {"atanh", functions_atanh, atanh},
};

static float in[CHUNK], out[CHUNK];

static double error_of(float found, double expected)
{
    int exponent;
    float rounded = (float)expected;
    if (isnan(expected) || isinf(rounded))
        return (isnan(expected) ? isnan(found) : found == rounded || nextafterf(rounded, 0) == found) ? 0 : 1e9;
    if (fabs(expected) < 0x1p-126)
        return fabs(found - expected) <= 0x1p-148 ? 0 : 1e9;
    frexp(expected, &exponent);
    return fabs(found - expected) / ldexp(1.0, exponent - 24);
}

int main(int count, char **words)
{
    uint64_t stride = count > 1 ? strtoull(words[1], 0, 10) : 1;
    for (unsigned f = 0; f < sizeof functions / sizeof *functions; f++) {
        double worst = 0;
        float at = 0;
        for (uint64_t next = 0; next < UINT64_C(1) << 32;) {
            unsigned size = 0;
            for (; size < CHUNK && next < UINT64_C(1) << 32; size++, next += stride) {
                uint32_t bits = (uint32_t)next;
                memcpy(&in[size], &bits, sizeof bits);
            }
            if (functions[f].kernel(in, out, 0))
                return 1;
            for (unsigned i = 0; i < size; i++) {
                double error = error_of(out[i], functions[f].reference(in[i]));
                if (error > worst)
                    worst = error, at = in[i];
            }
        }
        printf("%s %.4f %a\n", functions[f].name, worst, at);
        fflush(stdout);
    }
    return 0;
}
