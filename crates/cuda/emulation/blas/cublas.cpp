// An emulated cuBLAS: the functions that src/driver/blas.rs calls, on the emulated driver's streams. Products are
// computed when the stream comes to them, in float64 and a fixed order; their matrices are read then and not before.
#include <cstddef>
#include <mutex>
#include <set>
#include <utility>

#include <dlfcn.h>

#define SPIKENORM_API extern "C" __attribute__((visibility("default")))

namespace {

// Numbers of cublas_api.h and library_types.h.
constexpr int kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15;
constexpr int kOpN = 0, kOpT = 1;
constexpr int kFloat = 0, kDouble = 1;
constexpr int kComputeFloat = 68, kComputeDouble = 70;

using Work = void (*)(void*);
using Enqueue = int (*)(void* stream, Work work, void* context, Work release);
using Expect = int (*)(const void* at, std::size_t bytes, const char* what);

// A function of the emulated driver, which must be loaded already.
template <typename Function>
Function of_driver(const char* name) {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return driver ? reinterpret_cast<Function>(dlsym(driver, name)) : nullptr;
}

Enqueue enqueue() {
    static const auto found = of_driver<Enqueue>("spikenorm_emulated_enqueue_owned");
    return found;
}

// Whether the matrix, `rows` by `columns` as it is stored, is live memory; else the driver is told.
bool is_live(const void* at, int rows, int columns, int stride, std::size_t size) {
    static const auto expect = of_driver<Expect>("spikenorm_emulated_expect");
    const std::size_t last = static_cast<std::size_t>(columns - 1) * static_cast<std::size_t>(stride) + static_cast<std::size_t>(rows);
    return expect != nullptr && expect(at, last * size, "a matrix product") == 0;
}

struct Handle {
    void* stream = nullptr;
    void* workspace = nullptr;
};

std::mutex mutex;
std::set<Handle*>& handles() {
    static std::set<Handle*> all;
    return all;
}

bool is_alive(Handle* handle) {
    const std::lock_guard lock(mutex);
    return handles().count(handle) != 0;
}

struct Factor {
    const void* at;
    int stride;
    bool transposed;
};

struct Product {
    int rows, columns, inner;
    double alpha, beta;
    Factor a, b;
    void* out;
    int out_stride;
    bool is_double;
};

// Column-major, as cuBLAS has it.
template <typename T>
void multiply(const Product& p) {
    const auto value = [](const Factor& m, int row, int column) -> double {
        const std::size_t r = m.transposed ? column : row, c = m.transposed ? row : column;
        return static_cast<const T*>(m.at)[r + c * static_cast<std::size_t>(m.stride)];
    };
    T* out = static_cast<T*>(p.out);
    for (int column = 0; column < p.columns; ++column) {
        for (int row = 0; row < p.rows; ++row) {
            double sum = 0.0;
            for (int k = 0; k < p.inner; ++k) sum += value(p.a, row, k) * value(p.b, k, column);
            T& at = out[row + column * static_cast<std::size_t>(p.out_stride)];
            // A factor of zero does not look at what is there, which may be NaN.
            at = static_cast<T>(p.alpha * sum + (p.beta == 0.0 ? 0.0 : p.beta * static_cast<double>(at)));
        }
    }
}

void run(void* context) {
    const Product& product = *static_cast<const Product*>(context);
    const std::size_t size = product.is_double ? sizeof(double) : sizeof(float);
    const auto is_factor_live = [&](const Factor& factor, int rows, int columns) {
        if (factor.transposed) std::swap(rows, columns);
        return is_live(factor.at, rows, columns, factor.stride, size);
    };
    if (!is_factor_live(product.a, product.rows, product.inner) || !is_factor_live(product.b, product.inner, product.columns) ||
        !is_live(product.out, product.rows, product.columns, product.out_stride, size)) {
        return;
    }
    if (product.is_double) {
        multiply<double>(product);
    } else {
        multiply<float>(product);
    }
}

}  // namespace

SPIKENORM_API int cublasCreate_v2(Handle** handle) {
    if (enqueue() == nullptr) return kNotInitialized;
    const std::lock_guard lock(mutex);
    *handle = new Handle;
    handles().insert(*handle);
    return kSuccess;
}

SPIKENORM_API int cublasDestroy_v2(Handle* handle) {
    const std::lock_guard lock(mutex);
    if (handles().erase(handle) == 0) return kNotInitialized;
    delete handle;
    return kSuccess;
}

SPIKENORM_API int cublasSetStream_v2(Handle* handle, void* stream) {
    if (!is_alive(handle)) return kNotInitialized;
    handle->stream = stream;
    handle->workspace = nullptr;  // As the real one does.
    return kSuccess;
}

SPIKENORM_API int cublasSetWorkspace_v2(Handle* handle, void* workspace, std::size_t bytes) {
    if (!is_alive(handle)) return kNotInitialized;
    if (workspace == nullptr || bytes == 0 || reinterpret_cast<std::size_t>(workspace) % 256 != 0) return kInvalidValue;
    handle->workspace = workspace;
    return kSuccess;
}

SPIKENORM_API int cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                               int type_a, int stride_a, const void* b, int type_b, int stride_b, const void* beta, void* c,
                               int type_c, int stride_c, int compute, int) {
    if (!is_alive(handle)) return kNotInitialized;
    const bool is_double = type_c == kDouble;
    if (type_a != type_c || type_b != type_c || (type_c != kFloat && type_c != kDouble)) return kNotSupported;
    if (compute != (is_double ? kComputeDouble : kComputeFloat)) return kNotSupported;
    if ((op_a != kOpN && op_a != kOpT) || (op_b != kOpN && op_b != kOpT) || m < 0 || n < 0 || k < 0) return kInvalidValue;
    if (stride_a < (op_a == kOpN ? m : k) || stride_b < (op_b == kOpN ? k : n) || stride_c < m) return kInvalidValue;
    // A workspace of its own is what makes a product repeatable and capturable.
    if (handle->workspace == nullptr) return kExecutionFailed;
    const auto factor = [&](const void* at) {
        return is_double ? *static_cast<const double*>(at) : static_cast<double>(*static_cast<const float*>(at));
    };
    if (m == 0 || n == 0) return kSuccess;
    auto* product = new Product{m, n, k, factor(alpha), factor(beta), {a, stride_a, op_a == kOpT}, {b, stride_b, op_b == kOpT},
                                c, stride_c, is_double};
    const auto release = [](void* context) { delete static_cast<Product*>(context); };
    return enqueue()(handle->stream, run, product, release) == 0 ? kSuccess : kExecutionFailed;
}

SPIKENORM_API int cublasGetProperty(int which, int* value) {
    constexpr int kVersion[] = {13, 0, 2};
    if (which < 0 || which > 2 || value == nullptr) return kInvalidValue;
    *value = kVersion[which];
    return kSuccess;
}

SPIKENORM_API const char* cublasGetStatusString(int status) {
    switch (status) {
        case kSuccess: return "CUBLAS_STATUS_SUCCESS";
        case kNotInitialized: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case kInvalidValue: return "CUBLAS_STATUS_INVALID_VALUE";
        case kExecutionFailed: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case kNotSupported: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "unknown status";
    }
}
