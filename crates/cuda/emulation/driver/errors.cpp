// Names and sentences of the errors this driver can give.
#include <map>

#include "cuda_api.h"

namespace spikenorm::emulation::driver {
namespace {

struct Text {
    const char* name;
    const char* sentence;
};

const std::map<int, Text>& texts() {
    static const std::map<int, Text> all{
        {kSuccess, {"CUDA_SUCCESS", "no error"}},
        {kInvalidValue, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
        {kOutOfMemory, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
        {kNotInitialized, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
        {kNoDevice, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
        {kInvalidDevice, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
        {kInvalidImage, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
        {kInvalidContext, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
        {kNoBinaryForGpu, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
        {kUnsupportedPtxVersion, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain"}},
        {kInvalidHandle, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
        {kNotFound, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
        {kNotReady, {"CUDA_ERROR_NOT_READY", "device not ready"}},
        {kIllegalAddress, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
        {kLaunchOutOfResources, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
        {kLaunchFailed, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
        {kCooperativeLaunchTooLarge, {"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"}},
        {kNotSupported, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
        {kStreamCaptureUnsupported, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
        {kStreamCaptureInvalidated, {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
        {kStreamCaptureIsolation, {"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"}},
        {kCapturedEvent, {"CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"}},
    };
    return all;
}

int look_up(int code, const char** text, const char* Text::* which) {
    const auto at = texts().find(code);
    *text = at == texts().end() ? nullptr : at->second.*which;
    return at == texts().end() ? kInvalidValue : kSuccess;
}

}  // namespace
}  // namespace spikenorm::emulation::driver

using namespace spikenorm::emulation::driver;

SPIKENORM_API int cuGetErrorName(int code, const char** text) { return look_up(code, text, &Text::name); }
SPIKENORM_API int cuGetErrorString(int code, const char** text) { return look_up(code, text, &Text::sentence); }
