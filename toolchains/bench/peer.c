/* One product c[M, N] = a[M, K] b[K, N] by a peer's library, between the marks of the counter.
 * Status 1 if the result is wrong, 2 if the library refuses. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "marks.h"

static float *a, *b, *c;

#if defined(BLAS)
void cblas_sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *,
                 int);

static int prepare(void)
{
    return 0;
}

static int compute(void)
{
    cblas_sgemm(101, 111, 111, M, N, K, 1.0f, a, K, b, N, 0.0f, c, N);
    return 0;
}
#elif defined(XNNPACK) || defined(XNNPACK_2024)
int xnn_initialize(const void *);
int xnn_run_operator(void *, void *);

static void *operator;

#ifdef XNNPACK
int xnn_create_fully_connected_nc_f32(size_t, size_t, size_t, size_t, const float *, const float *, float,
                                      float, uint32_t, void **);
int xnn_setup_fully_connected_nc_f32(void *, size_t, const float *, float *, void *);

static int create(const float *transposed)
{
    return xnn_create_fully_connected_nc_f32(K, N, K, N, transposed, NULL, -1e30f, 1e30f, 0, &operator) ||
           xnn_setup_fully_connected_nc_f32(operator, M, a, c, NULL);
}
#else
int xnn_create_fully_connected_nc_f32(size_t, size_t, size_t, size_t, const float *, const float *, float,
                                      float, uint32_t, void *, void *, void **);
int xnn_reshape_fully_connected_nc_f32(void *, size_t, void *);
int xnn_setup_fully_connected_nc_f32(void *, const float *, float *);

static int create(const float *transposed)
{
    return xnn_create_fully_connected_nc_f32(K, N, K, N, transposed, NULL, -1e30f, 1e30f, 0, NULL, NULL,
                                             &operator) ||
           xnn_reshape_fully_connected_nc_f32(operator, M, NULL) ||
           xnn_setup_fully_connected_nc_f32(operator, a, c);
}
#endif

static int prepare(void)
{
    float *transposed = malloc(sizeof(float) * N * K);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < K; j++)
            transposed[i * K + j] = b[j * N + i];
    return xnn_initialize(NULL) || create(transposed);
}

static int compute(void)
{
    return xnn_run_operator(operator, NULL);
}
#endif

int main(void)
{
    a = malloc(sizeof(float) * M * K + 256);
    b = malloc(sizeof(float) * K * N + 256);
    c = malloc(sizeof(float) * M * N + 256);
    for (size_t i = 0; i < (size_t)M * K; i++)
        a[i] = (float)(i % 7) - 3.0f;
    for (size_t i = 0; i < (size_t)K * N; i++)
        b[i] = (float)(i % 5) - 2.0f;
    if (prepare() || compute())
        return 2;
    close(MARK_BEGIN);
    if (compute())
        return 2;
    close(MARK_END);
    for (size_t i = 0; i < (size_t)M * N; i += 97) {
        float sum = 0;
        for (size_t j = 0; j < K; j++)
            sum += a[i / N * K + j] * b[j * N + i % N];
        if (sum != c[i])
            return 1;
    }
    return 0;
}
